//! The archive that suffers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walarchive_tests::filled::{copy_tree, files_below, fill};
use walarchive_tests::{Options, Output, Product, Scratch};

/// An archive with everything in it: two backups, dumps, WAL of two timelines, a pin.
pub struct Stored {
    pub scratch: Scratch,
    pub product: Product,
    /// The same archive, undamaged.
    pub copy: PathBuf,
    pub last_segment: String,
}

impl Stored {
    pub fn new(encrypted: bool) -> Option<Stored> {
        let scratch = Scratch::new();
        let product = Product::with(&scratch, Options { encrypted, ..Options::default() });
        let (_, last_segment) = fill(&scratch, &product)?;
        let copy = scratch.join("copy");
        copy_tree(&product.archive_dir(), &copy);
        scratch.own(&copy);
        Some(Stored { scratch, product, copy, last_segment })
    }

    pub fn verify(&self, args: &[&str]) -> Output {
        self.product.run(&[&["--json", "verify"], args].concat())
    }

    pub fn deep(&self) -> Output {
        self.verify(&["--deep"])
    }

    pub fn objects(&self) -> Vec<PathBuf> {
        files_below(&self.product.archive_dir())
    }

    pub fn key(&self, path: &Path) -> String {
        path.strip_prefix(self.product.archive_dir()).unwrap().to_str().unwrap().to_owned()
    }

    pub fn put_back(&self, path: &Path) {
        let original = self.copy.join(self.key(path));
        fs::write(path, fs::read(original).unwrap()).unwrap();
        self.scratch.own(path);
    }

    /// Verification fails, and names this object.
    pub fn is_found(&self, path: &Path, what: &str) -> Value {
        let run = self.deep();
        let key = self.key(path);
        if key == "archive.json" {
            assert!(matches!(run.code, Some(4 | 5)), "{what}: {run:#?}");
            return Value::Null;
        }
        assert_eq!(run.code, Some(4), "{what}: {run:#?}");
        let found = run.json();
        assert_eq!(found["ok"], false);
        let problems = found["problems"].as_array().unwrap();
        let problem = problems.iter().find(|problem| problem["object"] == key.as_str());
        problem.unwrap_or_else(|| panic!("{what}: {key} is not among {problems:#?}")).clone()
    }

    /// The same objects with the same bytes as in the copy.
    pub fn is_healed(&self) {
        let healed: Vec<_> =
            self.objects().iter().map(|path| (self.key(path), fs::read(path).unwrap())).collect();
        let names = healed.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let original = files_below(&self.copy);
        assert_eq!(names.len(), original.len(), "{names:#?}");
        for (key, bytes) in healed {
            assert!(fs::read(self.copy.join(&key)).unwrap() == bytes, "{key} is another one");
        }
    }

    pub fn heal(&self) -> Value {
        let copy = format!("file://{}", self.copy.display());
        let run = self.verify(&["--deep", "--repair-from", &copy]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        self.is_healed();
        run.json()
    }
}

pub fn names(found: &Value) -> Vec<String> {
    let names = found["endangers"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}
