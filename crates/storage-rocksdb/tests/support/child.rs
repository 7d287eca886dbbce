//! Starting, killing and judging child processes that carry the [load](super::load).
//!
//! A child runs with `faulty_libc.c` preloaded. That kills it, or fails one of its calls, at a named place, and takes down
//! what each sync made durable; so the parent can also judge what a power failure at that moment would have left:
//! [`Stored::lose_power`].
//!
//! Much of this is a matter of microseconds and may not come again for the same seed. So a failed test tells what happened to the
//! store and what RocksDB said about each copy, and keeps all of it ([`Stored`]'s drop).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use holdfast_storage::choices::SplitMix64;

use super::load::{self, Model};
use super::{copy, files, memory_directory, open, wal};

/// The library to preload, compiled for this run by the compiler that also links Rust programs.
pub(crate) struct FaultyLibc {
    root: tempfile::TempDir,
}

impl FaultyLibc {
    /// Compiles it.
    pub(crate) fn build() -> Self {
        let root = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faulty_libc.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&root.path().join("faulty_libc.so"), &source])
            .arg("-ldl")
            .status();
        assert!(status.unwrap().success(), "{} does not compile", source.display());
        Self { root }
    }

    fn library(&self) -> PathBuf {
        self.root.path().join("faulty_libc.so")
    }
}

/// What a child has said.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reported {
    /// How many batches it found; none until the store is open.
    pub(crate) found: Option<u64>,
    pub(crate) written: u64,
    pub(crate) synced: u64,
    ingesting: u64,
    ingested: u64,
    /// With how many batches each had to hold.
    checkpointing: BTreeMap<String, u64>,
    checkpointed: BTreeSet<String>,
    /// What was under way at its end.
    pub(crate) doing: BTreeSet<String>,
    pub(crate) failed: Vec<String>,
    pub(crate) refused: BTreeSet<String>,
    pub(crate) lies: Vec<String>,
}

impl Reported {
    fn hear(&mut self, line: &str) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || rest.parse::<u64>().unwrap();
        match what {
            "begin" => drop(self.doing.insert(rest.to_owned())),
            "end" => drop(self.doing.remove(rest)),
            "found" => {
                self.found = Some(number());
                self.written = number();
                self.synced = number();
            }
            "written" => self.written = number(),
            "synced" => self.synced = self.synced.max(number()),
            "ingesting" => self.ingesting = number(),
            "ingested" => self.ingested = number(),
            "checkpointing" => {
                let (name, n) = rest.split_once(' ').unwrap();
                self.checkpointing.insert(name.to_owned(), n.parse().unwrap());
            }
            "checkpointed" => drop(self.checkpointed.insert(rest.to_owned())),
            "failed" => self.failed.push(rest.to_owned()),
            "refused" => drop(self.refused.insert(rest.to_owned())),
            "LIED" => self.lies.push(rest.to_owned()),
            // The test harness's own lines.
            _ => {}
        }
    }
}

/// A store, and what is known about it from outside.
pub(crate) struct Stored {
    root: tempfile::TempDir,
    /// Batches that every image must hold.
    safe: Model,
    /// Batches that were written, and so must be there unless the power fails: at least, at most.
    written: (u64, u64),
    /// The ingested generation: at least, at most.
    generation: (u64, u64),
    /// What was done to it, for whoever has to find out why it is not as it should be.
    story: RefCell<Vec<String>>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

impl Stored {
    /// A directory for a store yet to be made.
    pub(crate) fn on_disk() -> Self {
        Self::new(tempfile::tempdir().unwrap())
    }

    /// The same, quicker: a process that is killed leaves in memory what it would leave on a disk.
    pub(crate) fn in_memory() -> Self {
        Self::new(memory_directory())
    }

    fn new(root: tempfile::TempDir) -> Self {
        fs::create_dir(root.path().join("store")).unwrap();
        Self {
            root,
            safe: Model::default(),
            written: (0, 0),
            generation: (0, 0),
            story: RefCell::default(),
        }
    }

    /// Something to be told if the test fails.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.story.borrow_mut().push(what.into());
    }

    /// The store's story, and where it is kept: the directory, and the copy that did not pass, as it is after it was opened.
    fn tell(&self) {
        eprintln!("the store that failed:");
        for line in self.story.borrow().iter() {
            eprintln!("  {line}");
        }
        for (log, _) in files(self.root.path()) {
            if log.file_name().is_some_and(|name| name == "LOG") {
                eprintln!("  {}:", log.strip_prefix(self.root.path()).unwrap().display());
                let text = fs::read_to_string(&log).unwrap_or_default();
                let telling = ["db_impl_open.cc", "ecovered from manifest", "ERROR"];
                for line in text
                    .lines()
                    .filter(|line| telling.iter().any(|word| line.contains(word)))
                {
                    eprintln!("    {line}");
                }
            }
        }
        let name = self.root.path().file_name().unwrap_or_default().display();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed{name}"));
        copy(self.root.path(), &kept);
        eprintln!("  kept in {}", kept.display());
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("store")
    }

    fn trace(&self) -> PathBuf {
        self.root.path().join("trace")
    }

    /// The calls that faults chose, one a line.
    fn hits(&self) -> PathBuf {
        self.root.path().join("hits")
    }

    /// Starts a child, with a fault (see `faulty_libc.c`) or none.
    pub(crate) fn start(&self, libc: &FaultyLibc, fault: Option<&str>) -> Child {
        self.spawn(self.command(libc, fault))
    }

    /// The command for such a child.
    pub(crate) fn command(&self, libc: &FaultyLibc, fault: Option<&str>) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env("LD_PRELOAD", libc.library())
            .env("HOLDFAST_FAULT_TRACE", self.trace())
            .env("HOLDFAST_FAULT_HIT", self.hits());
        self.note(format!(
            "a child starts, with the fault {}",
            fault.unwrap_or("none")
        ));
        if let Some(fault) = fault {
            command.env("HOLDFAST_FAULT", fault);
        }
        command
    }

    /// Starts a child by a command that only lacks what to do: this test binary's test `child`.
    pub(crate) fn spawn(&self, command: Command) -> Child {
        self.spawn_test("child", command)
    }

    /// The same with another test.
    pub(crate) fn spawn_test(&self, test: &str, mut command: Command) -> Child {
        command
            .args(["--exact", test, "--nocapture"])
            .env(load::DIRECTORY, self.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Waits for a child's end, and learns what it reported.
    pub(crate) fn wait(&mut self, child: Child) -> (ExitStatus, Reported) {
        self.listen(child, |_, _| {})
    }

    /// The same, with something to do after each line.
    pub(crate) fn listen(
        &mut self,
        mut child: Child,
        mut then: impl FnMut(&mut Child, &Reported),
    ) -> (ExitStatus, Reported) {
        let mut reported = Reported::default();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines {
            reported.hear(&line.unwrap());
            then(&mut child, &reported);
        }
        let status = child.wait().unwrap();
        let hits = fs::read_to_string(self.hits()).unwrap_or_default();
        self.note(format!(
            "its end: {status}; the fault hit {:?}; {reported:?}",
            hits.lines().last().unwrap_or("nothing")
        ));
        if let Some(found) = reported.found {
            let (low, high) = self.written;
            assert!(
                (low..=high).contains(&found),
                "the child found {found} of {:?}",
                self.written
            );
            // The call that was under way may have got there. What a refused write left is not known either.
            self.written = (reported.written, reported.written + 1);
            if reported.synced > self.safe_batches() {
                self.safe.advance(reported.synced);
            }
        }
        self.generation.0 = self.generation.0.max(reported.ingested);
        self.generation.1 = self.generation.1.max(reported.ingesting);
        (status, reported)
    }

    /// Batches that every image must hold.
    pub(crate) fn safe_batches(&self) -> u64 {
        self.safe.batches()
    }

    /// What the child's death left, power on: everything that was written.
    pub(crate) fn check(&self) {
        let image = self.image("as it was left");
        self.check_image(&image, self.written);
        let _ = fs::remove_dir_all(image);
    }

    /// What a power failure at the child's death would have left: of each file that RocksDB appends to anything that was not
    /// synced may be gone or garbage. What was synced must be there. Names are taken to be as durable as they look; so are lengths,
    /// unless the child ran with `HOLDFAST_FAULT_UNCUT`.
    pub(crate) fn lose_power(&self, seed: u64) {
        if !load::data(&self.directory()).exists() {
            // Killed before it made the first directory.
            return;
        }
        let mut random = SplitMix64::new(seed);
        self.note(format!("a power failure, seed {seed}"));
        let image = self.image("after a power failure");
        let (by_path, by_inode) = self.durable();
        for (path, len) in files(&load::data(&self.directory())) {
            let relative = path.strip_prefix(self.directory()).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let durable = if name.ends_with(".log") {
                // Recycled: other names' bytes may follow, so it is the position that counts.
                by_path.get(&path).copied().unwrap_or(0)
            } else if name.ends_with(".sst") || name.starts_with("MANIFEST-") {
                let inode = fs::metadata(&path).unwrap().ino();
                by_inode.get(&inode).copied().unwrap_or(0)
            } else {
                continue;
            };
            if durable < len {
                let at = durable + random.below(len - durable + 1);
                // Logs are written over what they held before, so anything may be there; other files only grow.
                let damage = match name.ends_with(".log") {
                    true => wal::Damage::random(&mut random),
                    false => wal::Damage::Cut,
                };
                self.note(format!(
                    "  {}: {damage:?} at {at}, durable to {durable}",
                    relative.display()
                ));
                let target = image.join(relative);
                let mut bytes = fs::read(&target).unwrap();
                damage.apply(&mut bytes, at as usize);
                fs::write(target, bytes).unwrap();
            }
        }
        self.check_image(&image, (self.safe_batches(), self.written.1));
        let _ = fs::remove_dir_all(image);
    }

    /// Where each file was durable: logs by path, other files by inode, since these get new names.
    fn durable(&self) -> (BTreeMap<PathBuf, u64>, BTreeMap<u64, u64>) {
        let (mut by_path, mut by_inode) = (BTreeMap::new(), BTreeMap::new());
        for line in fs::read_to_string(self.trace()).unwrap_or_default().lines() {
            let mut words = line.splitn(4, ' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (inode, position, size) = (number(), number(), number());
            by_path.insert(PathBuf::from(words.next().unwrap()), position);
            by_inode.insert(inode, size);
        }
        (by_path, by_inode)
    }

    /// A copy of the directory, so that the next child still finds what this one left.
    fn image(&self, what: &str) -> PathBuf {
        let image = self.root.path().join(what);
        if load::data(&self.directory()).exists() {
            copy(&load::data(&self.directory()), &load::data(&image));
        }
        image
    }

    fn check_image(&self, image: &Path, batches: (u64, u64)) {
        let what = image.file_name().unwrap().display();
        let engine = open(&load::data(image)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let n = load::batches(&engine, &self.safe);
        assert!(
            (batches.0..=batches.1).contains(&n),
            "{what}: {n} batches of {batches:?}"
        );
        for g in load::generations(&engine) {
            let (low, high) = self.generation;
            assert!(
                (low..=high).contains(&g),
                "{what}: generation {g} of {low} to {high}"
            );
        }
    }

    /// The checkpoints that this child took. One that opens holds what had been written when it
    /// began; one that returned does open.
    pub(crate) fn check_checkpoints(&self, reported: &Reported) {
        let copies = load::copies(&self.directory());
        for entry in fs::read_dir(&copies).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let returned = reported.checkpointed.contains(name);
            if !returned && fs::read_dir(&path).unwrap().next().is_none() {
                // Nothing yet but the directory itself.
                continue;
            }
            match open(&path) {
                Ok(engine) => {
                    let n = load::batches(&engine, &Model::default());
                    let possible = reported.checkpointing[name]..=self.written.1;
                    assert!(
                        possible.contains(&n),
                        "checkpoint {name} has {n}, not {possible:?}"
                    );
                }
                Err(error) => assert!(!returned, "checkpoint {name} returned: {error}"),
            }
        }
        let _ = fs::remove_dir_all(copies);
    }
}

/// Whether the child ended by SIGKILL.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}
