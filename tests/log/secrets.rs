//! What no record of any level has: a token, and the memo of an invoice.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use billstream::proto::report::{CreateInvoiceRequest, ExportRequest, ListInvoicesRequest};
use billstream::tokens::{hash, token};
use billstream::Config;
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

use crate::common::*;
use crate::patient;
use crate::records::{self, with};

const MEMO: &str = "the-memo-of-an-invoice";

fn upload_of(client: &billstream::client::Stub, memo: String, options: CallOption) -> bool {
    let (mut sink, result) = client.bulk_create(options).unwrap();
    let invoice = CreateInvoiceRequest { memo, ..invoice("a", 1) };
    block_on(async {
        // A refusal shows in the result.
        let _ = sink.send((invoice, WriteFlags::default())).await;
        half_close(&mut sink).await;
        result.await.is_ok()
    })
}

#[test]
fn neither_a_token_nor_a_memo_is_in_any_record() {
    records::keep();
    let [good, other] = [token(&[7; 32]), token(&[8; 32])];
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let hash = hash(good.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    fs::write(&tokens, format!("someone read,write sha256:{hash}\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let mut server = TestServer::start(Config { tokens, ..patient() });
    let client = server.client();
    let called = |id: &str, token: &str| {
        with(&[("x-request-id", id), ("authorization", &format!("Bearer {token}"))])
    };
    assert!(upload_of(&client, MEMO.to_owned(), called("secret-upload", &good)));
    assert!(!upload_of(&client, MEMO.repeat(10_000), called("secret-long", &good)));
    assert!(!upload_of(&client, format!("\0{MEMO}"), called("secret-again", &good)));
    let rows = client.export_invoices(&ExportRequest::new(), called("secret-rows", &good)).unwrap();
    assert_eq!(collect(rows).0[0].memo, MEMO);
    let list = ListInvoicesRequest::new();
    client.list_invoices(&list, called("secret-list", &good)).unwrap();
    let refused = client.list_invoices(&list, called("secret-other", &other));
    assert_status(refused, RpcStatusCode::UNAUTHENTICATED, "token");
    let whole = with(&[("authorization", &good)]);
    assert_status(client.list_invoices(&list, whole), RpcStatusCode::UNAUTHENTICATED, "malformed");
    server.stop();

    for id in ["upload", "long", "again", "rows", "list"] {
        assert_eq!(records::of(&format!("secret-{id}")).field("identity"), "someone");
    }
    let all = records::all();
    for secret in [MEMO, &good, &other, &hash] {
        let told = all.iter().find(|line| format!("{line:?}").contains(secret));
        assert!(told.is_none(), "{secret}: {told:?}");
    }
}
