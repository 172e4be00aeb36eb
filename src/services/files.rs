//! Proto files, found by what is in them.

use std::collections::{BTreeMap, HashMap};

use protobuf::descriptor::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};
use protobuf::Message;

/// A place in [`Files::files`].
type Place = usize;

#[derive(Default)]
pub struct Files {
    files: Vec<File>,
    by_name: HashMap<String, Place>,
    /// By full name: services, methods, messages, fields, oneofs, enums, their values, extensions.
    by_symbol: HashMap<String, Place>,
    /// By the full name of the message that is extended, and the number. Every message is there.
    extensions: HashMap<String, BTreeMap<i32, Place>>,
    /// Their full names, in order.
    services: Vec<String>,
}

struct File {
    encoded: Vec<u8>,
    imports: Vec<String>,
}

impl Files {
    /// Where two have one name, the first counts.
    pub fn new(files: impl IntoIterator<Item = FileDescriptorProto>) -> Files {
        let mut all = Files::default();
        for file in files {
            if !all.by_name.contains_key(file.name()) {
                all.add(&file);
            }
        }
        all.services.sort();
        all.services.dedup();
        all
    }

    /// The file, and after it those that it imports, each encoded.
    pub fn by_name(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        self.by_name.get(name).map(|place| self.with_imports(*place))
    }

    pub fn by_symbol(&self, symbol: &str) -> Option<Vec<Vec<u8>>> {
        self.by_symbol.get(symbol).map(|place| self.with_imports(*place))
    }

    pub fn by_extension(&self, message: &str, number: i32) -> Option<Vec<Vec<u8>>> {
        self.extensions.get(message)?.get(&number).map(|place| self.with_imports(*place))
    }

    /// The numbers of the extensions of a message that is known.
    pub fn extensions(&self, message: &str) -> Option<Vec<i32>> {
        Some(self.extensions.get(message)?.keys().copied().collect())
    }

    pub fn services(&self) -> &[String] {
        &self.services
    }

    fn with_imports(&self, place: Place) -> Vec<Vec<u8>> {
        let mut places = vec![place];
        let mut next = 0;
        while let Some(place) = places.get(next).copied() {
            // What is imported and not known here, the client may know.
            for import in self.files[place].imports.iter().filter_map(|it| self.by_name.get(it)) {
                if !places.contains(import) {
                    places.push(*import);
                }
            }
            next += 1;
        }
        places.into_iter().map(|place| self.files[place].encoded.clone()).collect()
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let Ok(encoded) = file.write_to_bytes() else { return };
        self.by_name.insert(file.name().to_owned(), self.files.len());
        self.files.push(File { encoded, imports: file.dependency.clone() });
        let scope = file.package();
        file.message_type.iter().for_each(|it| self.add_message(scope, it));
        file.enum_type.iter().for_each(|it| self.add_enum(scope, it));
        file.extension.iter().for_each(|it| self.add_extension(scope, it));
        file.service.iter().for_each(|it| self.add_service(scope, it));
    }

    /// Adds a symbol of the last file, and returns its full name.
    fn add_symbol(&mut self, scope: &str, name: &str) -> String {
        let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.by_symbol.entry(full.clone()).or_insert(self.files.len() - 1);
        full
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let scope = &self.add_symbol(scope, message.name());
        self.extensions.entry(scope.clone()).or_default();
        let fields = message.field.iter().map(FieldDescriptorProto::name);
        for name in fields.chain(message.oneof_decl.iter().map(|oneof| oneof.name())) {
            self.add_symbol(scope, name);
        }
        message.nested_type.iter().for_each(|it| self.add_message(scope, it));
        message.enum_type.iter().for_each(|it| self.add_enum(scope, it));
        message.extension.iter().for_each(|it| self.add_extension(scope, it));
    }

    fn add_enum(&mut self, scope: &str, of: &EnumDescriptorProto) {
        self.add_symbol(scope, of.name());
        // The values are beside their enum, not in it.
        for value in &of.value {
            self.add_symbol(scope, value.name());
        }
    }

    fn add_extension(&mut self, scope: &str, extension: &FieldDescriptorProto) {
        self.add_symbol(scope, extension.name());
        let extended = extension.extendee().trim_start_matches('.').to_owned();
        let place = self.files.len() - 1;
        self.extensions.entry(extended).or_default().entry(extension.number()).or_insert(place);
    }

    fn add_service(&mut self, scope: &str, service: &ServiceDescriptorProto) {
        let name = self.add_symbol(scope, service.name());
        for method in &service.method {
            self.add_symbol(&name, method.name());
        }
        self.services.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, package: &str, imports: &[&str]) -> FileDescriptorProto {
        let mut file = FileDescriptorProto::new();
        file.set_name(name.to_owned());
        file.set_package(package.to_owned());
        file.dependency = imports.iter().map(|it| it.to_string()).collect();
        file
    }

    fn names(files: Option<Vec<Vec<u8>>>) -> Vec<String> {
        let decode = |bytes: Vec<u8>| FileDescriptorProto::parse_from_bytes(&bytes).unwrap();
        files.unwrap().into_iter().map(|bytes| decode(bytes).name().to_owned()).collect()
    }

    #[test]
    fn a_file_comes_with_its_imports_once_each_whatever_imports_what() {
        let files = Files::new([
            file("a", "", &["b", "c", "unknown"]),
            file("b", "", &["d"]),
            file("c", "", &["d", "a"]),
            file("d", "", &[]),
            file("a", "another", &[]),
        ]);
        assert_eq!(names(files.by_name("a")), ["a", "b", "c", "d"]);
        assert_eq!(names(files.by_name("b")), ["b", "d"]);
        assert!(files.by_name("unknown").is_none());
    }

    #[test]
    fn every_symbol_is_found_by_its_full_name_alone() {
        let mut extended = DescriptorProto::new();
        extended.set_name("Extended".to_owned());
        let mut inner = EnumDescriptorProto::new();
        inner.set_name("Inner".to_owned());
        inner.value = vec![Default::default()];
        inner.value[0].set_name("VALUE".to_owned());
        let mut extension = FieldDescriptorProto::new();
        extension.set_name("more".to_owned());
        extension.set_extendee(".p.q.Extended".to_owned());
        extension.set_number(100);
        let mut base = file("base", "p.q", &[]);
        extended.enum_type = vec![inner];
        base.message_type = vec![extended];
        let mut more = file("more", "r", &["base"]);
        more.extension = vec![extension];
        let files = Files::new([base, more]);
        for symbol in ["p.q.Extended", "p.q.Extended.Inner", "p.q.Extended.VALUE"] {
            assert_eq!(names(files.by_symbol(symbol)), ["base"], "{symbol}");
        }
        for symbol in ["Extended", ".p.q.Extended", "p.q", "p.q.Extended.Inner.VALUE", ""] {
            assert!(files.by_symbol(symbol).is_none(), "{symbol}");
        }
        assert_eq!(names(files.by_symbol("r.more")), ["more", "base"]);
        assert_eq!(names(files.by_extension("p.q.Extended", 100)), ["more", "base"]);
        assert!(files.by_extension("p.q.Extended", 101).is_none());
        assert_eq!(files.extensions("p.q.Extended"), Some(vec![100]));
        assert_eq!(files.extensions("p.q.Unknown"), None);
    }
}
