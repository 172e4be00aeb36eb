//! `generate`.

use super::support::*;

#[test]
fn generate_gives_the_same_invoices_for_ever() {
    let expected = "\
invoice_id,customer_id,total_amount_cents,currency,issued_at,memo
inv-0000001,cust-00446,369,GBP,2024-05-21T21:59:06Z,4 × 東京 → 大阪
inv-0000002,cust-00102,1470,USD,2023-03-25T00:37:59Z,\"Parts 68170, 6 boxes, \"\"fragile\"\", déjà payé\"
inv-0000003,cust-00001,5,USD,2022-07-30T20:30:59Z,Period 2: consulting support travel training consulting support
";
    let csv = generate(10_000);
    assert!(csv.starts_with(expected), "{}", &csv[..400]);
    assert_eq!(fnv1a(csv.as_bytes()), 0x9bf4_5fd3_c60c_9959, "all of it");
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
