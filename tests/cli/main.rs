//! The command line, as a user has it: the built binary, real files, real connections.
//!
//! Every wait has a deadline, and every process ends with its test. Faults are put between client
//! and server by [`proxy::Proxy`], whose gates say when: nothing is timed by sleeping.

mod db;
mod dry_run;
mod export;
mod files;
mod generate;
mod import;
mod inputs;
mod interrupts;
mod list;
mod lost;
mod outputs;
mod proxy;
mod reconcile;
mod refusals;
mod serve;
mod show;
mod summary;
mod support;
mod terminal;
mod token;
mod written;
