//! Generates the protobuf messages in Rust alone: no protoc is needed. `proto/` is the contract, which others
//! generate too, with a `google.rpc` and services of gRPC of their own; ours are in `build/`.

use std::collections::HashMap;
use std::fs;

use protobuf::reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};
use protobuf_codegen::{Codegen, Customize, CustomizeCallback};

const CONTRACT: [&str; 2] = ["proto/billing/v1/report.proto", "proto/billing/v1/admin.proto"];

fn main() {
    let standard = [
        "build/google/rpc/error_details.proto",
        "build/grpc/health/v1/health.proto",
        "build/grpc/reflection/v1/reflection.proto",
    ];
    let protos = [&CONTRACT[..], &standard].concat();
    for proto in &protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    Codegen::new()
        .pure()
        .includes(["proto", "build"])
        .inputs(protos)
        .customize_callback(Comments::of(&CONTRACT))
        .cargo_out_dir("proto")
        .run_from_script();
}

/// The comments of proto files as documentation, which the generator leaves out: by the name of what they are of,
/// such as `Invoice` and `Invoice.currency`.
struct Comments(HashMap<String, String>);

impl Comments {
    fn of(protos: &[&str]) -> Comments {
        let read = |proto| fs::read_to_string(proto).unwrap_or_else(|e| panic!("{proto}: {e}"));
        let text: String = protos.iter().map(read).collect();
        let (mut comments, mut scope, mut comment) = (HashMap::new(), "", String::new());
        for line in text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment += text;
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let name = match words[..] {
                ["message" | "enum", name, "{" | "{}"] => {
                    scope = name;
                    name.to_owned()
                }
                [.., name, "=", _] => format!("{scope}.{name}"),
                _ => String::new(),
            };
            comments.insert(name, std::mem::take(&mut comment));
        }
        Comments(comments)
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |comment| comment.trim())
    }
}

fn documented(lines: &str) -> Customize {
    let lines: String = lines.lines().map(|line| format!("/// {line}\n")).collect();
    Customize::default().before(&lines)
}

impl CustomizeCallback for Comments {
    fn message(&self, message: &MessageDescriptor) -> Customize {
        documented(self.get(message.name()))
    }

    fn field(&self, field: &FieldDescriptor) -> Customize {
        let name = format!("{}.{}", field.containing_message().name(), field.name());
        documented(self.get(&name))
    }

    /// With its values in a list: the generator asks for no documentation of each.
    fn enumeration(&self, enumeration: &EnumDescriptor) -> Customize {
        let mut lines = self.get(enumeration.name()).to_owned() + "\n";
        for value in enumeration.values() {
            let comment = self.get(&format!("{}.{}", enumeration.name(), value.name()));
            lines += &format!("\n* `{}`: {comment}", value.name());
        }
        documented(&lines)
    }
}
