//! The methods of the services of `billing.v1`, as their clients see them.

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method, MethodType};
use protobuf::Message;

use crate::proto::admin::{BackupChunk, BackupRequest};
use crate::proto::report::{
    BulkResult, CreateInvoiceBatch, CreateInvoiceRequest, EventBatch, ExportEventsRequest,
    ExportRequest, GetInvoiceRequest, GetInvoiceResponse, Invoice, InvoiceBatch,
    ListInvoicesRequest, ListInvoicesResponse, ReconcileAck, ReconcileAckBatch, ReconcileEvent,
    ReconcileEventBatch, Summary, SummaryRequest,
};

const fn method<Q: Message, P: Message>(ty: MethodType, name: &'static str) -> Method<Q, P> {
    Method {
        ty,
        name,
        req_mar: Marshaller { ser: serialize::<Q>, de: deserialize::<Q> },
        resp_mar: Marshaller { ser: serialize::<P>, de: deserialize::<P> },
    }
}

pub const GET_SUMMARY: Method<SummaryRequest, Summary> =
    method(MethodType::Unary, "/billing.v1.ReportService/GetSummary");
pub const LIST_INVOICES: Method<ListInvoicesRequest, ListInvoicesResponse> =
    method(MethodType::Unary, "/billing.v1.ReportService/ListInvoices");
pub const EXPORT_INVOICES: Method<ExportRequest, Invoice> =
    method(MethodType::ServerStreaming, "/billing.v1.ReportService/ExportInvoices");
pub const EXPORT_INVOICE_BATCHES: Method<ExportRequest, InvoiceBatch> =
    method(MethodType::ServerStreaming, "/billing.v1.ReportService/ExportInvoiceBatches");
pub const BULK_CREATE: Method<CreateInvoiceRequest, BulkResult> =
    method(MethodType::ClientStreaming, "/billing.v1.ReportService/BulkCreate");
pub const BULK_CREATE_BATCHES: Method<CreateInvoiceBatch, BulkResult> =
    method(MethodType::ClientStreaming, "/billing.v1.ReportService/BulkCreateBatches");
pub const RECONCILE: Method<ReconcileEvent, ReconcileAck> =
    method(MethodType::Duplex, "/billing.v1.ReportService/Reconcile");
pub const RECONCILE_BATCHES: Method<ReconcileEventBatch, ReconcileAckBatch> =
    method(MethodType::Duplex, "/billing.v1.ReportService/ReconcileBatches");
pub const GET_INVOICE: Method<GetInvoiceRequest, GetInvoiceResponse> =
    method(MethodType::Unary, "/billing.v1.ReportService/GetInvoice");
pub const EXPORT_EVENTS: Method<ExportEventsRequest, EventBatch> =
    method(MethodType::ServerStreaming, "/billing.v1.ReportService/ExportEvents");
pub const BACKUP: Method<BackupRequest, BackupChunk> =
    method(MethodType::ServerStreaming, "/billing.v1.AdminService/Backup");

fn serialize<M: Message>(message: &M, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    grpcio::pb_ser(message, buffer)
}

fn deserialize<M: Message>(reader: MessageReader) -> grpcio::Result<M> {
    grpcio::pb_de(reader)
}
