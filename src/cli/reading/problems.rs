//! What is wrong with an input: the first of it in words, and how much there is.

use super::super::failure::Failure;
use super::super::values::quoted;

/// What is wrong at one place.
#[derive(Debug)]
pub struct Complaint {
    pub message: String,
    /// Options that may help.
    pub hints: Vec<String>,
}

impl Complaint {
    pub fn new(message: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), hints: Vec::new() }
    }

    /// Of a value.
    pub fn wrong(value: &str, expected: &str) -> Complaint {
        Complaint::new(format!("{}: expected {expected}", quoted(value)))
    }

    /// Of the column `column`.
    pub fn at(self, column: &str) -> Complaint {
        Complaint { message: format!("column {column}: {}", self.message), ..self }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Complaint {
        self.hints.push(hint.into());
        self
    }
}

/// How many are told.
const SHOWN: usize = 20;

/// All that is wrong with an input.
#[derive(Default)]
pub struct Problems {
    shown: Vec<String>,
    /// Each once, whatever it helps with.
    hints: Vec<String>,
    count: u64,
    /// What comes after the last of them is not checked.
    ended: bool,
}

impl Problems {
    pub fn add(&mut self, place: &str, complaint: Complaint) {
        self.count += 1;
        if self.shown.len() == SHOWN {
            return;
        }
        self.shown.push(format!("{place}: {}", complaint.message));
        for hint in complaint.hints {
            if !self.hints.contains(&hint) {
                self.hints.push(hint);
            }
        }
    }

    /// Adds what is wrong at `place` however often it is met.
    pub fn add_once(&mut self, place: &str, complaint: Complaint) {
        if !self.shown.contains(&format!("{place}: {}", complaint.message)) {
            self.add(place, complaint);
        }
    }

    /// What comes now cannot be read after what was added last.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Takes all of them as a wrong input; `None` when nothing is wrong.
    pub fn take(&mut self) -> Option<Failure> {
        let Problems { shown, hints, count, ended } = std::mem::take(self);
        if count == 0 {
            return None;
        }
        let mut message = shown.join("\nerror: ");
        if count > SHOWN as u64 {
            message += &format!("\nerror: these are the first {SHOWN} of {count} errors");
        }
        if ended && count > 1 {
            message += "\nerror: after the last of them nothing was checked";
        }
        hints.iter().for_each(|hint| message += &format!("\n  {hint}"));
        Some(Failure::Usage(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: u64, ended: bool) -> Option<String> {
        let mut problems = Problems::default();
        for line in 0..count {
            problems.add(&format!("f:{line}"), Complaint::new("no").hint("--option helps"));
        }
        if ended {
            problems.end();
        }
        match problems.take()? {
            Failure::Usage(message) => Some(message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_are_told_and_all_are_counted() {
        assert_eq!(told(0, false), None);
        assert_eq!(told(1, true).unwrap(), "f:0: no\n  --option helps");
        assert_eq!(told(2, false).unwrap(), "f:0: no\nerror: f:1: no\n  --option helps");
        let all = told(20, false).unwrap();
        assert!(all.ends_with("\nerror: f:19: no\n  --option helps"), "{all}");
        let more = told(21, true).unwrap();
        let end = "\nerror: f:19: no\nerror: these are the first 20 of 21 errors\nerror: after the last of \
                   them nothing was checked\n  --option helps";
        assert!(more.ends_with(end), "{more}");
    }
}
