//! `list`.

use super::support::*;

#[test]
fn list_pages_through_every_invoice_once() {
    let server = Server::start();
    let csv = generate(100);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    for page_size in ["1", "7", "100", "1000"] {
        let listed = server.run(&[
            "list",
            "--page-size",
            page_size,
            "--format",
            "csv",
            "--columns",
            COLUMNS,
        ]);
        assert_eq!(listed.ok(), csv, "pages of {page_size}");
    }
}
