//! Generates the messages and the service from the proto file of the main crate, without protoc.

use std::error::Error;

use tonic_build::manual;

/// The rpcs: name, route, request, response, and whether the client and the server stream.
const RPCS: [(&str, &str, &str, bool, bool); 8] = [
    ("get_summary", "GetSummary", "SummaryRequest", false, false),
    ("list_invoices", "ListInvoices", "ListInvoicesRequest", false, false),
    ("export_invoices", "ExportInvoices", "ExportRequest", false, true),
    ("export_invoice_batches", "ExportInvoiceBatches", "ExportRequest", false, true),
    ("bulk_create", "BulkCreate", "CreateInvoiceRequest", true, false),
    ("bulk_create_batches", "BulkCreateBatches", "CreateInvoiceBatch", true, false),
    ("reconcile", "Reconcile", "ReconcileEvent", true, true),
    ("reconcile_batches", "ReconcileBatches", "ReconcileEventBatch", true, true),
];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "../../proto/billing/v1/report.proto";
    println!("cargo:rerun-if-changed={proto}");
    let files = protox::compile([proto], ["../../proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;

    // The tuned peer's service: the same routes, but its responses are bytes already encoded.
    let mut service = manual::Service::builder().name("ReportService").package("billing.v1");
    for (name, route, input, client_streams, server_streams) in RPCS {
        let mut method = manual::Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("compare::proto::{input}"))
            .output_type("bytes::Bytes")
            .codec_path(if server_streams { "crate::codec::Stream" } else { "crate::codec::One" });
        if client_streams {
            method = method.client_streaming();
        }
        if server_streams {
            method = method.server_streaming();
        }
        service = service.method(method.build());
    }
    manual::Builder::new().build_client(false).compile(&[service.build()]);
    Ok(())
}
