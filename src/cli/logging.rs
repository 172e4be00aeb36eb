//! The log of the program: lines of text, or of JSON, on stderr.

use std::io::Write;

use billstream::config::LogFormat;
use billstream::server;
use env_logger::{Builder, Env, Logger};
use log::kv::{self, Key, Value, VisitSource};
use log::{Log, Metadata, Record};
use serde_json::{Map, Value as Json};

/// Starts the log, from `level` on where RUST_LOG says nothing else. The lines of the gRPC C core go to it too.
pub fn log_from(level: &str, format: LogFormat) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(level));
    if format == LogFormat::Json {
        builder.format(|out, record| writeln!(out, "{}", json_line(record)));
    }
    let logger = builder.build();
    log::set_max_level(logger.filter());
    // OK to fail: then there is a log.
    let _ = log::set_boxed_logger(Box::new(WithCore(logger)));
    server::take_core_log();
}

/// Says what the gRPC C core says as a part of this program.
struct WithCore(Logger);

impl Log for WithCore {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.module_path() != Some(server::CORE_LOG) {
            return self.0.log(record);
        }
        let Some((level, text)) = server::core_line(record) else { return };
        let mut said = record.to_builder();
        self.0.log(&said.args(format_args!("{text}")).level(level).target("grpc").build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The record as an object: `time`, `level`, `target`, `message`, and its fields.
fn json_line(record: &Record<'_>) -> Json {
    let mut line = Map::new();
    // Up to milliseconds, and always of one width.
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    line.insert("time".to_owned(), time.into());
    line.insert("level".to_owned(), record.level().as_str().to_lowercase().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    // OK because no visit fails.
    let _ = record.key_values().visit(&mut Fields(&mut line));
    line.into()
}

struct Fields<'a>(&'a mut Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let number = value.to_u64().map(Json::from).or_else(|| value.to_f64().map(Json::from));
        self.0.insert(key.to_string(), number.unwrap_or_else(|| value.to_string().into()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_the_fields_of_its_record() {
        let fields = [("method", Value::from("Export\"Invoices")), ("rows", Value::from(7u64))];
        let mut record = Record::builder();
        record.level(log::Level::Warn).target("billstream::calls").key_values(&fields);
        let line = json_line(&record.args(format_args!("took\n2 ms")).build()).to_string();
        assert!(!line.contains('\n'), "{line}");
        let read: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(read["level"], "warn");
        assert_eq!(read["message"], "took\n2 ms");
        assert_eq!(read["method"], "Export\"Invoices");
        assert_eq!(read["rows"], 7);
        assert!(read["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
}
