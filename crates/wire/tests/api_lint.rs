//! The public API keeps its own rules. buf's STANDARD lint checks most of them too; these tests keep them where
//! there is no buf, and add what buf does not know: that everything is documented, and what a mutation and a read
//! must have.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_wire::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

const PACKAGE: &str = "holdfast.v1";

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    set.file
        .into_iter()
        .filter(|file| file.package() == PACKAGE)
        .collect()
}

/// Messages by full name with a leading dot, nested ones included.
fn messages(files: &[FileDescriptorProto]) -> BTreeMap<String, DescriptorProto> {
    fn visit(prefix: &str, message: &DescriptorProto, all: &mut BTreeMap<String, DescriptorProto>) {
        let name = format!("{prefix}.{}", message.name());
        for nested in &message.nested_type {
            visit(&name, nested, all);
        }
        all.insert(name, message.clone());
    }
    let mut all = BTreeMap::new();
    for message in files.iter().flat_map(|file| &file.message_type) {
        visit(&format!(".{PACKAGE}"), message, &mut all);
    }
    all
}

fn field<'a>(message: &'a DescriptorProto, name: &str) -> Option<&'a FieldDescriptorProto> {
    message.field.iter().find(|field| field.name() == name)
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn files_lie_where_their_package_says_and_have_the_same_options() {
    let files = files();
    assert!(files.len() >= 6);
    for file in &files {
        let (directory, name) = file.name().rsplit_once('/').unwrap();
        assert_eq!(directory, PACKAGE.replace('.', "/"), "{}", file.name());
        assert!(
            is_lower_snake(name.strip_suffix(".proto").unwrap()),
            "{}",
            file.name()
        );
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        let options = file.options.as_ref().unwrap();
        assert!(options.java_multiple_files(), "{}", file.name());
        assert_eq!(options.java_package(), "dev.holdfast.v1", "{}", file.name());
        assert!(
            file.public_dependency.is_empty() && file.weak_dependency.is_empty(),
            "{}",
            file.name()
        );
    }
}

#[test]
fn enums_begin_with_unspecified_and_carry_their_prefix() {
    let files = files();
    let messages = messages(&files);
    let nested = messages.values().flat_map(|message| &message.enum_type);
    let enums: Vec<&EnumDescriptorProto> = files
        .iter()
        .flat_map(|file| &file.enum_type)
        .chain(nested)
        .collect();
    assert!(enums.len() > 8);
    for the_enum in enums {
        let prefix = snake(the_enum.name()).to_uppercase() + "_";
        let first = &the_enum.value[0];
        assert_eq!(
            (first.name(), first.number()),
            (format!("{prefix}UNSPECIFIED").as_str(), 0)
        );
        let mut numbers = BTreeSet::new();
        for value in &the_enum.value {
            assert!(
                value.name().starts_with(&prefix),
                "{} in {}",
                value.name(),
                the_enum.name()
            );
            assert!(numbers.insert(value.number()), "{} is an alias", value.name());
        }
    }
}

#[test]
fn names_are_spelt_as_the_style_guide_says() {
    for (name, message) in messages(&files()) {
        let is_map_entry = message
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry());
        assert!(
            is_map_entry || message.name().starts_with(|c: char| c.is_ascii_uppercase()),
            "{name}"
        );
        assert!(!message.name().contains('_'), "{name}");
        for field in &message.field {
            assert!(is_lower_snake(field.name()), "{name}.{}", field.name());
        }
        for oneof in message
            .oneof_decl
            .iter()
            .filter(|oneof| !oneof.name().starts_with('_'))
        {
            assert!(is_lower_snake(oneof.name()), "{name}.{}", oneof.name());
        }
    }
}

#[test]
fn every_rpc_has_messages_of_its_own() {
    let mut seen = BTreeSet::new();
    for service in files().iter().flat_map(|file| &file.service) {
        assert!(service.name().ends_with("Service"), "{}", service.name());
        for method in &service.method {
            let (request, response) = (method.input_type(), method.output_type());
            assert_eq!(request, format!(".{PACKAGE}.{}Request", method.name()));
            assert_eq!(response, format!(".{PACKAGE}.{}Response", method.name()));
            assert!(seen.insert(request.to_owned()), "{request} is used twice");
        }
    }
    assert!(seen.len() > 20);
}

#[test]
fn mutations_carry_their_id_and_context_and_reads_their_consistency() {
    let files = files();
    let messages = messages(&files);
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let request = &messages[method.input_type()];
            let response = &messages[method.output_type()];
            let is_read = ["Get", "BatchGet", "Lookup", "List", "Export"]
                .iter()
                .any(|verb| method.name().starts_with(verb));
            let has = |name: &str, of: Type| field(request, name).is_some_and(|field| field.r#type() == of);
            let what = format!("{}.{}", service.name(), method.name());
            match (service.name(), method.name()) {
                // What this node knows, whatever the others say.
                ("ClusterService", "GetStatus") => continue,
                // Its options carry both, and its items' ids are derived.
                ("AccountService", "ImportAccounts") => {
                    let options = &messages[&format!(".{PACKAGE}.ImportOptions")];
                    assert!(field(options, "import_id").is_some() && field(options, "context").is_some());
                    continue;
                }
                (_, _) if is_read => assert!(has("consistency", Type::Message), "{what}"),
                ("AccountService", _) => {
                    assert!(has("request_id", Type::String), "{what}");
                    assert!(has("context", Type::Message), "{what}");
                }
                // A compare-and-set takes the request id's place (see proto/README.md).
                (_, "TransferLeadership" | "Drain" | "TriggerSnapshot") => {
                    assert!(has("context", Type::Message), "{what}");
                }
                ("RealmService", _) => {
                    assert!(
                        has("etag", Type::String) && has("context", Type::Message),
                        "{what}"
                    );
                    assert!(has("validate_only", Type::Bool), "{what}");
                }
                _ => {
                    assert!(has("expected_membership_id", Type::String), "{what}");
                    assert!(
                        has("context", Type::Message) && has("validate_only", Type::Bool),
                        "{what}"
                    );
                }
            }
            if service.name() != "ClusterService" && method.name() != "ExportAccounts" {
                let token = field(response, "consistency_token");
                assert!(token.is_some_and(|token| token.r#type() == Type::Bytes), "{what}");
            }
        }
    }
}

#[test]
fn everything_is_documented() {
    for file in files() {
        let described: BTreeSet<Vec<i32>> = file
            .source_code_info
            .as_ref()
            .unwrap()
            .location
            .iter()
            .filter(|location| !location.leading_comments().trim().is_empty())
            .map(|location| location.path.clone())
            .collect();
        let check = |path: &[i32], what: &str| {
            assert!(
                described.contains(path),
                "{} lacks a comment in {}",
                what,
                file.name()
            );
        };
        // The numbers are the fields of FileDescriptorProto, DescriptorProto and so on: see descriptor.proto.
        for (at, message) in file.message_type.iter().enumerate() {
            check(&[4, at as i32], message.name());
            for (field_at, field) in message.field.iter().enumerate() {
                let what = format!("{}.{}", message.name(), field.name());
                check(&[4, at as i32, 2, field_at as i32], &what);
            }
        }
        for (at, the_enum) in file.enum_type.iter().enumerate() {
            check(&[5, at as i32], the_enum.name());
            for (value_at, value) in the_enum.value.iter().enumerate() {
                check(&[5, at as i32, 2, value_at as i32], value.name());
            }
        }
        for (at, service) in file.service.iter().enumerate() {
            check(&[6, at as i32], service.name());
            for (method_at, method) in service.method.iter().enumerate() {
                check(&[6, at as i32, 2, method_at as i32], method.name());
            }
        }
    }
}

#[test]
fn request_fields_say_how_they_behave() {
    // prost drops options that it does not know, so the source is read instead: in a request message, and in
    // whatever may be part of one, every field outside a oneof is annotated.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/holdfast/v1/");
    for name in [
        "account_service",
        "realm_service",
        "cluster_service",
        "account",
        "common",
    ] {
        let source = std::fs::read_to_string(format!("{root}{name}.proto")).unwrap();
        let mut inside = Vec::new();
        for line in source.lines().map(str::trim) {
            if let Some(opened) = line.strip_suffix(" {") {
                inside.push(opened.to_owned());
            } else if line == "}" {
                inside.pop();
            }
            let in_request = inside.last().is_some_and(|message| {
                message.starts_with("message ") && (message.ends_with("Request") || name == "account")
            });
            if in_request && line.contains(" = ") && !line.starts_with("//") {
                assert!(line.contains("google.api.field_behavior"), "{name}.proto: {line}");
            }
        }
        assert!(inside.is_empty(), "{name}: {inside:?}");
    }
}
