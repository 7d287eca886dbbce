//! Plots: panels one below the other, each with its lines, over the same axis.

use std::path::Path;

use holdfast_bench::Window;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::table::thousands;

/// A plot.
pub(crate) struct Plot {
    /// Above it: says all that a reader needs who finds it somewhere else.
    pub(crate) title: String,
    /// Below it: what the axis shows.
    pub(crate) axis: &'static str,
    /// By what one step of the axis is more than the one before, where steps are factors.
    pub(crate) factor: Option<f64>,
    /// From above.
    pub(crate) panels: Vec<Panel>,
    /// What happened where on the axis: grey lines.
    pub(crate) marks: Vec<(f64, String)>,
}

/// A part of a plot.
pub(crate) struct Panel {
    /// What its height shows.
    pub(crate) name: &'static str,
    /// Whether steps of its height are factors; otherwise it begins at 0.
    pub(crate) factors: bool,
    /// What is shown.
    pub(crate) lines: Vec<Line>,
}

impl Panel {
    /// A panel that begins at 0.
    pub(crate) fn linear(name: &'static str, lines: Vec<Line>) -> Panel {
        Panel {
            name,
            factors: false,
            lines,
        }
    }

    /// A panel of one line, with what was in each second at its middle.
    pub(crate) fn of_seconds(name: &'static str, seconds: &[Window], value: fn(&Window) -> f64) -> Panel {
        let middles = (0..).map(|second: u32| f64::from(second) + 0.5);
        let line = Line {
            name: name.to_owned(),
            points: middles.zip(seconds.iter().map(value)).collect(),
        };
        Panel::linear(name, vec![line])
    }
}

/// A line.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 250;
const TITLE_HEIGHT: u32 = 30;
/// Beside panels with several lines.
const NAMES_WIDTH: u32 = 130;
/// Told apart also by those who see no colours: blue, orange, green, grey, by lightness.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0x8c, 0x2c),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0xd6, 0x27, 0x28),
];

/// Rows for what stands at marks, above all lines, as a share of a panel.
const MARK_ROWS: usize = 6;
const MARK_ROW: f64 = 0.07;

const MARK: RGBColor = RGBColor(0x77, 0x77, 0x77);

impl Plot {
    /// Draws it, unless it has no points. Returns whether it did.
    pub(crate) fn draw(&self, path: &Path) -> Result<bool, String> {
        let all = || self.panels.iter().flat_map(|panel| &panel.lines);
        let Some((least, most)) = range(all().flat_map(|line| &line.points).map(|(x, _)| *x)) else {
            return Ok(false);
        };
        self.draw_within(path, least, most)
            .map_err(|why| format!("cannot draw {}: {why}", path.display()))?;
        Ok(true)
    }

    fn draw_within(&self, path: &Path, least: f64, most: f64) -> Result<(), Box<dyn std::error::Error>> {
        let height = PANEL_HEIGHT * self.panels.len() as u32 + TITLE_HEIGHT;
        let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root
            .titled(&self.title, ("sans-serif", 17))?
            .split_evenly((self.panels.len(), 1));
        for (area, panel) in areas.iter().zip(&self.panels) {
            let values = panel.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
            let (low, high) = range(values).unwrap_or((0.0, 1.0));
            let rows = self.marks.len().min(MARK_ROWS) as f64;
            let top = high * 1.1 / (1.0 - MARK_ROW * rows);
            let linear = 0.0..top.max(1e-9);
            // A value of 0 has no place where steps are factors.
            let low = low.max(high / 1e6).max(1e-6);
            let log = (low / 1.3..(high * 1.3).max(low * 2.0)).log_scale();
            let steps = least.min(0.0)..most.max(least + 1.0);
            let factors = |base| {
                (least / 1.1..(most * 1.1).max(least * 2.0))
                    .log_scale()
                    .base(base)
            };
            match (self.factor, panel.factors) {
                (None, false) => self.panel(area, panel, (steps, top), linear)?,
                (None, true) => self.panel(area, panel, (steps, high), log)?,
                (Some(base), false) => self.panel(area, panel, (factors(base), top), linear)?,
                (Some(base), true) => self.panel(area, panel, (factors(base), high), log)?,
            }
        }
        root.present()?;
        Ok(())
    }

    fn panel<X, Y>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        panel: &Panel,
        (across, top): (X, f64),
        up: Y,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        // Of one width, so that one second is below the other.
        let names = self.panels.iter().any(|panel| panel.lines.len() > 1);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(if names { NAMES_WIDTH } else { 24 })
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.axis)
            .y_desc(panel.name)
            .x_label_formatter(&|value| figure(*value))
            .y_label_formatter(&|value| figure(*value))
            .draw()?;
        let end = chart.x_range().end;
        for (number, (at, what)) in self.marks.iter().enumerate() {
            chart.draw_series(LineSeries::new([(*at, 0.0), (*at, top)], MARK))?;
            // One below the other, or neighbours would cover each other.
            let height = top * (0.99 - MARK_ROW * (number % MARK_ROWS) as f64);
            chart.draw_series([Text::new(format!(" {what} "), (*at, height), beside(*at, end))])?;
        }
        for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            // Many points are a line; few are what was measured, and the line only leads from one to the other.
            if line.points.len() <= 12 {
                let dots = line
                    .points
                    .iter()
                    .map(|point| Circle::new(*point, 3, colour.filled()));
                chart.draw_series(dots)?;
            }
        }
        // Names beside the panel, where no line is.
        let names = panel.lines.iter().filter(|_| panel.lines.len() > 1);
        for ((line, colour), row) in names.zip(COLOURS.iter().cycle()).zip(0..) {
            let (x, y) = ((WIDTH - NAMES_WIDTH) as i32 + 10, 16 + 18 * row);
            area.draw(&PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)))?;
            area.draw(&Text::new(
                line.name.as_str(),
                (x + 22, y - 6),
                ("sans-serif", 12),
            ))?;
        }
        Ok(())
    }
}

/// What stands beside a mark: on its right, or on its left where there is more room.
fn beside<'a>(at: f64, end: f64) -> TextStyle<'a> {
    let side = if at > end * 0.7 { HPos::Right } else { HPos::Left };
    ("sans-serif", 11)
        .into_font()
        .color(&MARK)
        .pos(Pos::new(side, VPos::Top))
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((least, most)) => Some((least.min(value), most.max(value))),
    })
}

/// A number on an axis.
fn figure(value: f64) -> String {
    match value.abs() {
        10.0.. => thousands(value),
        _ => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_axes() {
        let directory = std::env::temp_dir().join(format!("holdfast-plot-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for factor in [Some(4.0), None] {
            let panel = |factors, points| Panel {
                name: "height",
                factors,
                lines: vec![Line {
                    name: "a line".to_owned(),
                    points,
                }],
            };
            let plot = Plot {
                title: "a title".to_owned(),
                axis: "across",
                factor,
                panels: vec![
                    panel(true, vec![(1.0, 0.0), (64.0, 3.0)]),
                    panel(false, vec![(1.0, 7.0), (64.0, 0.0)]),
                    panel(true, vec![(1.0, 1.0)]),
                ],
                marks: vec![(2.0, "it happened".to_owned())],
            };
            let path = directory.join(format!("{}.svg", factor.is_some()));
            assert_eq!(plot.draw(&path), Ok(true));
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(
                svg.contains("a title") && svg.contains("<polyline") && svg.contains("it happened"),
                "{svg}"
            );
        }
        let nothing = Plot {
            title: String::new(),
            axis: "",
            factor: None,
            panels: Vec::new(),
            marks: Vec::new(),
        };
        assert_eq!(nothing.draw(&directory.join("nothing.svg")), Ok(false));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.25, 1.0, 0.5, 1024.0, 1e6].map(figure),
            ["0.25", "1", "0.5", "1,024", "1,000,000"]
        );
    }
}
