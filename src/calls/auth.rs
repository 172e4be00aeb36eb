//! Who may make which call: by a token, or by a certificate that the transport has verified.
//!
//! A refused call has cost its headers, the hash of a token and a line of the log a second: it is refused before it
//! has a place of any limit, and before its first message is waited for. A call that was let in goes on to its end,
//! also when its token is taken away under it.

use std::fmt;
use std::sync::{Arc, RwLock};

use time::OffsetDateTime;

use crate::calls::call::Seldom;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::tokens::{Entry, Proof, Right, Rights, Tokens};

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: whoever watches over a server has no token of it.
    Nothing,
    /// To be known, with whatever rights.
    Name,
    Right(Right),
}

/// What the method `/package.Service/Method` needs. One that is not listed here, as of an embedder's service, may
/// change things.
pub fn needs(path: &str) -> Needs {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    match (service, method) {
        ("billing.v1.ReportService", "GetSummary" | "ListInvoices" | "GetInvoice") => {
            Needs::Right(Right::Read)
        }
        (
            "billing.v1.ReportService",
            "ExportInvoices" | "ExportInvoiceBatches" | "ExportEvents",
        ) => Needs::Right(Right::Read),
        ("billing.v1.AdminService", _) => Needs::Right(Right::Admin),
        ("grpc.health.v1.Health", _) => Needs::Nothing,
        ("grpc.reflection.v1.ServerReflection", _) => Needs::Name,
        ("grpc.reflection.v1alpha.ServerReflection", _) => Needs::Name,
        _ => Needs::Right(Right::Write),
    }
}

/// The longest token that is looked for in bytes.
const MAX_TOKEN_BYTES: usize = 512;

/// Where calls show who makes them.
pub struct Gate {
    tokens: RwLock<Arc<Tokens>>,
    metrics: Arc<Metrics>,
    /// For the log of refused calls.
    seldom: Seldom,
}

impl Gate {
    /// A gate for the owners of `tokens`, and of certificates.
    pub fn new(tokens: Tokens, metrics: &Arc<Metrics>) -> Gate {
        let tokens = RwLock::new(Arc::new(tokens));
        Gate { tokens, metrics: Arc::clone(metrics), seldom: Seldom::default() }
    }

    /// Puts others in the place of the tokens, for the calls that come from now on.
    pub fn replace(&self, new: Tokens) {
        *self.tokens.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(new);
    }

    /// Lets a caller in, whose name it gives, or refuses it. `headers` are all values of its `authorization`,
    /// `certificate` gives the names in its certificate, of which the first is its own where none has an entry.
    pub fn authorize<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        certificate: impl FnOnce() -> Vec<String>,
        needs: Needs,
    ) -> std::result::Result<Option<Arc<str>>, Refused> {
        if needs == Needs::Nothing {
            return Ok(None);
        }
        let tokens = Arc::clone(&self.tokens.read().unwrap_or_else(|e| e.into_inner()));
        let (name, rights, what) = match token(headers)? {
            Some(token) => of_token(&tokens, token)?,
            None => of_certificate(&tokens, &certificate())
                .ok_or_else(|| Refused::unknown("missing token"))?,
        };
        match needs {
            Needs::Right(right) if !rights.has(right) => {
                let error = Error::PermissionDenied(format!("{what} without the right {right}"));
                Err(Refused { error, name: Some(name) })
            }
            _ => Ok(Some(name)),
        }
    }

    /// [`Gate::authorize`] for who has one header and no certificate, with the refusal counted and logged.
    pub fn authorize_one(&self, header: Option<&str>, right: Right, from: &str) -> Result<()> {
        self.authorize(header.map(str::as_bytes), Vec::new, Needs::Right(right))
            .map(drop)
            .map_err(|refused| self.refused(refused, from, "the admin listener"))
    }

    /// Counts and logs a refusal: a line a second at warn, where callers could otherwise fill the log, and the
    /// others at debug.
    pub fn refused(&self, refused: Refused, from: &str, to: &str) -> Error {
        let counter = match refused.error {
            Error::PermissionDenied(_) => &self.metrics.calls_denied,
            _ => &self.metrics.calls_unauthenticated,
        };
        counter.add(1);
        let level = if self.seldom.is_time() { log::Level::Warn } else { log::Level::Debug };
        log::log!(
            level,
            "a call of {from} to {to} was refused: {refused}; {} so far",
            counter.get()
        );
        refused.error
    }
}

/// A call that is not let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Without more than the class of the reason: the caller may be anyone.
    pub error: Error,
    /// Who called, where that is known: for the log.
    pub name: Option<Arc<str>>,
}

impl Refused {
    fn unknown(class: &str) -> Refused {
        Refused { error: Error::Unauthenticated(class.to_owned()), name: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// The token of `Bearer TOKEN`.
fn token<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
) -> std::result::Result<Option<&'a [u8]>, Refused> {
    let mut headers = headers.into_iter();
    let Some(header) = headers.next() else { return Ok(None) };
    if headers.next().is_some() {
        return Err(Refused::unknown("more than one authorization header"));
    }
    let is_bearer = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"bearer ");
    let token = header.split_at_checked(7).filter(|(scheme, _)| is_bearer(scheme));
    let token = token.map(|(_, token)| token.trim_ascii());
    let is_one = |token: &&[u8]| {
        (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
    };
    match token.filter(is_one) {
        Some(token) => Ok(Some(token)),
        None => Err(Refused::unknown("malformed authorization header")),
    }
}

/// Who someone is, what it may, and by what.
type Known = (Arc<str>, Rights, &'static str);

fn of_token(tokens: &Tokens, token: &[u8]) -> std::result::Result<Known, Refused> {
    let entry = tokens.of_token(token).ok_or_else(|| Refused::unknown("unknown token"))?;
    let Entry { name, rights, proof } = entry;
    match proof {
        Proof::Token(_, Some(expires)) if *expires <= OffsetDateTime::now_utc() => {
            Err(Refused { name: Some(Arc::clone(name)), ..Refused::unknown("expired token") })
        }
        _ => Ok((Arc::clone(name), *rights, "token")),
    }
}

/// Who has shown a certificate and no token.
fn of_certificate(tokens: &Tokens, certificate: &[String]) -> Option<Known> {
    let listed = certificate.iter().find_map(|name| tokens.of_certificate(name));
    let (name, rights) = match listed {
        Some(entry) => (Arc::clone(&entry.name), entry.rights),
        None => (Arc::from(&certificate.first()?[..]), Rights::READ_AND_WRITE),
    };
    Some((name, rights, "certificate"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens;

    fn gate() -> Gate {
        let line = |name: &str, rights: &str, token: &str, rest: &str| {
            let hash = tokens::hash(token.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
            format!("{name} {rights} sha256:{hash}{rest}\n")
        };
        let file = [
            line("reports", "read", "r-token", " expires=9999-01-01T00:00:00Z"),
            line("ops", "admin", "a-token", ""),
            line("old", "read", "o-token", " expires=2001-01-01T00:00:00Z"),
            "spiffe://billing/batch write cert\n".to_owned(),
        ];
        Gate::new(file.concat().parse().unwrap(), &Arc::default())
    }

    fn let_in(headers: &[&[u8]], certificate: &[&str], needs: Needs) -> String {
        let certificate = || certificate.iter().map(|name| name.to_string()).collect();
        match gate().authorize(headers.iter().copied(), certificate, needs) {
            Ok(name) => name.map_or_else(|| "anyone".to_owned(), |name| name.to_string()),
            Err(Refused { error: Error::Unauthenticated(class), .. }) => format!("16 {class}"),
            Err(Refused { error: Error::PermissionDenied(class), .. }) => format!("7 {class}"),
            Err(other) => panic!("{other:?}"),
        }
    }

    const READ: Needs = Needs::Right(Right::Read);
    const WRITE: Needs = Needs::Right(Right::Write);

    #[test]
    fn a_token_is_shown_in_one_header_of_one_form() {
        let cases: &[(&[&[u8]], &str)] = &[
            (&[b"Bearer r-token"], "reports"),
            (&[b"bearer r-token"], "reports"),
            (&[b"BEARER   r-token "], "reports"),
            (&[], "16 missing token"),
            (&[b"Bearer other"], "16 unknown token"),
            (&[b"Bearer r-toke"], "16 unknown token"),
            (&[b"Bearer o-token"], "16 expired token"),
            (&[b""], "16 malformed authorization header"),
            (&[b"Bearer"], "16 malformed authorization header"),
            (&[b"Bearer "], "16 malformed authorization header"),
            (&[b"Bearerr-token"], "16 malformed authorization header"),
            (&[b"Basic r-token"], "16 malformed authorization header"),
            (&[b"r-token"], "16 malformed authorization header"),
            (&[b"Bearer r-token r-token"], "16 malformed authorization header"),
            (&[b"Bearer \xff\xfe"], "16 malformed authorization header"),
            (&[b"Bearer r-token", b"Bearer r-token"], "16 more than one authorization header"),
            (&[b"Bearer r-token", b""], "16 more than one authorization header"),
        ];
        for (headers, expected) in cases {
            assert_eq!(let_in(headers, &[], READ), *expected, "{headers:?}");
        }
        let long = ["Bearer ", &"x".repeat(MAX_TOKEN_BYTES + 1)].concat();
        assert_eq!(let_in(&[long.as_bytes()], &[], READ), "16 malformed authorization header");
    }

    #[test]
    fn a_right_is_its_own_and_no_other() {
        let read: &[&[u8]] = &[b"Bearer r-token"];
        let admin: &[&[u8]] = &[b"Bearer a-token"];
        assert_eq!(let_in(read, &[], WRITE), "7 token without the right write");
        assert_eq!(let_in(admin, &[], READ), "7 token without the right read");
        assert_eq!(let_in(admin, &[], Needs::Right(Right::Admin)), "ops");
        assert_eq!(let_in(admin, &[], Needs::Name), "ops");
        assert_eq!(let_in(&[], &[], Needs::Name), "16 missing token");
        // Who looks after a server may have any token, or a wrong one.
        assert_eq!(let_in(&[b"nonsense"], &[], Needs::Nothing), "anyone");
    }

    #[test]
    fn a_certificate_is_known_by_its_names_and_a_token_comes_before_it() {
        let batch = ["batch.example", "spiffe://billing/batch"];
        assert_eq!(let_in(&[], &batch, WRITE), "spiffe://billing/batch");
        assert_eq!(let_in(&[], &batch, READ), "7 certificate without the right read");
        assert_eq!(let_in(&[], &["other.example", "x"], READ), "other.example");
        assert_eq!(let_in(&[], &["other.example"], WRITE), "other.example");
        let admin = Needs::Right(Right::Admin);
        assert_eq!(let_in(&[], &["other.example"], admin), "7 certificate without the right admin");
        assert_eq!(let_in(&[b"Bearer r-token"], &batch, READ), "reports");
        assert_eq!(let_in(&[b"Bearer other"], &batch, WRITE), "16 unknown token");
        // The name of a token is no name of a certificate.
        assert_eq!(let_in(&[], &["ops"], admin), "7 certificate without the right admin");
    }

    #[test]
    fn the_admin_listener_asks_with_one_header() {
        let gate = gate();
        let ask = |header| gate.authorize_one(header, Right::Admin, "127.0.0.1:5");
        assert_eq!(ask(Some("Bearer a-token")), Ok(()));
        assert_eq!(ask(None), Err(Error::Unauthenticated("missing token".to_owned())));
        let denied = Error::PermissionDenied("token without the right admin".to_owned());
        assert_eq!(ask(Some("Bearer r-token")), Err(denied));
        let metrics = &gate.metrics;
        assert_eq!((metrics.calls_unauthenticated.get(), metrics.calls_denied.get()), (1, 1));
        assert_eq!(metrics.calls_failed.get(), 0, "a request of HTTP is no call");
    }

    #[test]
    fn an_unlisted_method_may_change_things() {
        for (path, expected) in [
            ("/billing.v1.ReportService/GetSummary", READ),
            ("/billing.v1.ReportService/ListInvoices", READ),
            ("/billing.v1.ReportService/ExportInvoices", READ),
            ("/billing.v1.ReportService/ExportInvoiceBatches", READ),
            ("/billing.v1.ReportService/GetInvoice", READ),
            ("/billing.v1.ReportService/ExportEvents", READ),
            ("/billing.v1.ReportService/BulkCreate", WRITE),
            ("/billing.v1.ReportService/BulkCreateBatches", WRITE),
            ("/billing.v1.ReportService/Reconcile", WRITE),
            ("/billing.v1.ReportService/ReconcileBatches", WRITE),
            ("/billing.v1.ReportService/New", WRITE),
            ("/billing.v1.AdminService/Backup", Needs::Right(Right::Admin)),
            ("/grpc.health.v1.Health/Check", Needs::Nothing),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Needs::Name),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Needs::Name),
            ("/other.Service/Get", WRITE),
            ("//", WRITE),
            ("", WRITE),
        ] {
            assert_eq!(needs(path), expected, "{path}");
        }
    }
}
