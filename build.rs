//! Generates the protobuf messages in Rust alone: no protoc is needed. `proto/` is the contract, which others
//! generate too, with a `google.rpc` of their own; ours is in `build/`.

fn main() {
    let protos = ["proto/billing/v1/report.proto", "build/google/rpc/error_details.proto"];
    for proto in protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    protobuf_codegen::Codegen::new()
        .pure()
        .includes(["proto", "build"])
        .inputs(protos)
        .cargo_out_dir("proto")
        .run_from_script();
}
