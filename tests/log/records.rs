//! The log of this process, which is that of all its servers: a test finds its own records by its request ids.

use std::collections::HashMap;
use std::sync::{Mutex, Once};

use grpcio::{CallOption, MetadataBuilder};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::common::*;

static RECORDS: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// One record.
#[derive(Clone, Debug)]
pub struct Line {
    pub level: Level,
    pub text: String,
    fields: HashMap<String, String>,
}

impl Line {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap()
    }
}

struct Records;

impl Log for Records {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut fields = Fields(HashMap::new());
        record.key_values().visit(&mut fields).unwrap();
        let (level, text) = (record.level(), record.args().to_string());
        RECORDS.lock().unwrap().push(Line { level, text, fields: fields.0 });
    }

    fn flush(&self) {}
}

struct Fields(HashMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let twice = self.0.insert(key.to_string(), value.to_string());
        assert_eq!(twice, None, "{key} is there twice");
        Ok(())
    }
}

/// From now on the log is kept, all levels of it.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Records).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

pub fn all() -> Vec<Line> {
    RECORDS.lock().unwrap().clone()
}

/// The one line of the call that is called `id`, when there is one.
pub fn of(id: &str) -> Line {
    let is_of = |line: &Line| line.fields.get("request_id").is_some_and(|of| of == id);
    let lines = || all().into_iter().filter(is_of).collect::<Vec<_>>();
    eventually(&format!("a line of {id}"), || !lines().is_empty());
    let mut lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// The options of a call with these headers.
pub fn with(headers: &[(&str, &str)]) -> CallOption {
    let mut metadata = MetadataBuilder::new();
    for (name, value) in headers {
        metadata.add_str(name, value).unwrap();
    }
    CallOption::default().headers(metadata.build()).timeout(DEADLINE)
}

/// The options of a call that is called `id`.
pub fn called(id: &str) -> CallOption {
    with(&[("x-request-id", id)])
}
