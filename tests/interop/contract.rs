//! The contract of before credit notes, refunds and voids, which its clients have for ever: all of it is in ours.

use std::collections::BTreeSet;
use std::path::Path;

use protobuf::descriptor::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

/// As it was at that time, to the letter.
pub const BEFORE_BOOKS: &str = "tests/fixtures/proto-before-books";

/// Everything that a client may count on, a line each.
type Lines = BTreeSet<String>;

fn read(dir: &str) -> Lines {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut parser = protobuf_parse::Parser::new();
    parser.pure().include(&dir);
    let files = ["report", "admin"].map(|name| dir.join(format!("billing/v1/{name}.proto")));
    let set = parser.inputs(files).file_descriptor_set().unwrap();
    set.file.iter().filter(|file| file.package() == "billing.v1").flat_map(file_lines).collect()
}

fn file_lines(file: &FileDescriptorProto) -> Lines {
    let messages =
        file.message_type.iter().flat_map(|message| message_lines(file.package(), message));
    let enums = file.enum_type.iter().flat_map(|values| enum_lines(file.package(), values));
    let services = file.service.iter().flat_map(service_lines);
    messages.chain(enums).chain(services).collect()
}

fn message_lines(scope: &str, message: &DescriptorProto) -> Lines {
    let name = format!("{scope}.{}", message.name());
    let fields = message.field.iter().map(|field| field_line(&name, message, field));
    let nested = message.nested_type.iter().flat_map(|inner| message_lines(&name, inner));
    let enums = message.enum_type.iter().flat_map(|values| enum_lines(&name, values));
    fields.chain(nested).chain(enums).chain([format!("message {name}")]).collect()
}

fn field_line(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field.oneof_index.map(|i| message.oneof_decl[i as usize].name());
    format!(
        "{name}.{} = {}: {:?} {:?} {} oneof {oneof:?} optional {} packed {:?}",
        field.name(),
        field.number(),
        field.label(),
        field.type_(),
        field.type_name(),
        field.proto3_optional(),
        field.options.packed,
    )
}

fn enum_lines(scope: &str, values: &EnumDescriptorProto) -> Lines {
    let line = |value: &protobuf::descriptor::EnumValueDescriptorProto| {
        format!("{scope}.{}.{} = {}", values.name(), value.name(), value.number())
    };
    values.value.iter().map(line).collect()
}

fn service_lines(service: &ServiceDescriptorProto) -> Lines {
    let line = |method: &protobuf::descriptor::MethodDescriptorProto| {
        format!(
            "rpc {}.{} of {} (stream {}) to {} (stream {})",
            service.name(),
            method.name(),
            method.input_type(),
            method.client_streaming(),
            method.output_type(),
            method.server_streaming()
        )
    };
    service.method.iter().map(line).collect()
}

#[test]
fn all_of_the_contract_of_before_is_in_ours() {
    let (before, now) = (read(BEFORE_BOOKS), read("proto"));
    let gone: Vec<_> = before.difference(&now).collect();
    assert!(gone.is_empty(), "not so any more: {gone:#?}");
    // It was read: messages, fields, values and rpcs.
    for line in [
        "message billing.v1.Invoice",
        "billing.v1.Invoice.sequence = 1: ",
        "rpc ReportService.Reconcile of ",
    ] {
        assert!(
            before.iter().any(|known| known.starts_with(line)),
            "{line:?} is not in {before:#?}"
        );
    }
    assert!(before.contains("billing.v1.InvoiceStatus.INVOICE_STATUS_VOID = 5"), "{before:#?}");
}
