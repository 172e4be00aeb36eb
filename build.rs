//! Generates the protobuf messages from `proto/`, in Rust alone: no protoc is needed.

fn main() {
    let protos = ["proto/billing/v1/report.proto", "proto/google/rpc/error_details.proto"];
    for proto in protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    protobuf_codegen::Codegen::new()
        .pure()
        .includes(["proto"])
        .inputs(protos)
        .cargo_out_dir("proto")
        .run_from_script();
}
