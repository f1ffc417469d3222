//! [`Bom`]: a bill of materials in SPDX 2 or CycloneDX, in JSON, read for its packages.

use serde::Deserialize;

use super::Package;
use crate::attestation::{Attestation, BillForm, JsonBounds, JsonError, Predicate, scan_json};

/// A bill of materials is at most this long, in bytes: one of a desktop with all its files named has about 30 MB.
pub const MAX_BOM_BYTES: usize = 64 << 20;
/// Packages that it can name.
pub const MAX_PACKAGES: usize = 100_000;
const BOUNDS: JsonBounds = JsonBounds { bytes: MAX_BOM_BYTES, depth: 64, values: 8_000_000 };

/// Why a bill of materials cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BomError {
    /// Not JSON, or not of the form that it says.
    #[error("it is no bill of materials that can be read: {0}")]
    Json(#[from] JsonError),
    /// Of another form.
    #[error("it is neither SPDX 2 nor CycloneDX in JSON")]
    Form,
    /// Longer than any.
    #[error("it names more than {MAX_PACKAGES} packages")]
    TooMany,
    /// There is nothing in it that an advisory could bear on.
    #[error("it names no packages at all")]
    Empty,
}

/// What is inside of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bom {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spdx {
    spdx_version: String,
    #[serde(default)]
    packages: Vec<SpdxPackage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    name: String,
    #[serde(default)]
    version_info: Option<String>,
    #[serde(default)]
    external_refs: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_type: String,
    reference_locator: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CycloneDx {
    bom_format: String,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    purl: Option<String>,
    #[serde(default)]
    components: Vec<Component>,
}

/// Which of the two it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marks {
    #[serde(default)]
    spdx_version: Option<String>,
    #[serde(default)]
    bom_format: Option<String>,
}

impl Bom {
    /// Reads a document.
    ///
    /// # Errors
    /// It is none, or not within its bounds; it names no packages.
    pub fn parse(bytes: &[u8]) -> Result<Self, BomError> {
        scan_json(bytes, BOUNDS)?;
        let marks: Marks = read(bytes)?;
        match (marks.spdx_version.as_deref(), marks.bom_format.as_deref()) {
            (Some(_), None) => read::<Spdx>(bytes)?.try_into(),
            (None, Some(_)) => read::<CycloneDx>(bytes)?.try_into(),
            _ => Err(BomError::Form),
        }
    }

    /// Reads the document in a statement; `None` where the statement says something else.
    pub fn of_statement(statement: &Attestation) -> Option<Result<Self, BomError>> {
        #[derive(Deserialize)]
        struct Statement<T> {
            predicate: T,
        }
        let Predicate::Bill(bill) = statement.predicate() else { return None };
        Some(match bill.form {
            BillForm::Spdx => {
                read::<Statement<Spdx>>(statement.payload()).and_then(|statement| statement.predicate.try_into())
            }
            BillForm::CycloneDx => {
                read::<Statement<CycloneDx>>(statement.payload()).and_then(|statement| statement.predicate.try_into())
            }
        })
    }

    /// The packages, at least one, in the order of the document.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    fn of(packages: Vec<Package>) -> Result<Self, BomError> {
        match packages.len() {
            0 => Err(BomError::Empty),
            1..=MAX_PACKAGES => Ok(Self { packages }),
            _ => Err(BomError::TooMany),
        }
    }
}

impl TryFrom<Spdx> for Bom {
    type Error = BomError;

    fn try_from(document: Spdx) -> Result<Self, BomError> {
        if !document.spdx_version.starts_with("SPDX-2.") {
            return Err(BomError::Form);
        }
        let package = |package: SpdxPackage| {
            let purl = package.external_refs.iter().find(|reference| reference.reference_type == "purl");
            let placed = purl.and_then(|reference| Package::from_purl(&reference.reference_locator));
            with_version(placed, package.name, package.version_info)
        };
        Self::of(document.packages.into_iter().map(package).collect())
    }
}

impl TryFrom<CycloneDx> for Bom {
    type Error = BomError;

    fn try_from(document: CycloneDx) -> Result<Self, BomError> {
        if document.bom_format != "CycloneDX" {
            return Err(BomError::Form);
        }
        let (mut packages, mut rest) = (Vec::new(), document.components);
        while let Some(component) = rest.pop() {
            let placed = component.purl.as_deref().and_then(Package::from_purl);
            packages.push(with_version(placed, component.name, component.version));
            rest.extend(component.components);
        }
        Self::of(packages)
    }
}

/// A package URL counts before the fields beside it, and is completed by them.
fn with_version(placed: Option<Package>, name: String, version: Option<String>) -> Package {
    match placed {
        Some(package) => Package { version: package.version.or(version), ..package },
        None => Package::unplaced(name, version),
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BomError> {
    serde_json::from_slice(bytes).map_err(|error| JsonError::Form(error.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{Dsse, PAYLOAD_TYPE_IN_TOTO};
    use serde_json::{Value, json};

    fn spdx() -> Value {
        json!({
            "spdxVersion": "SPDX-2.3",
            "packages": [
                {"name": "hello", "SPDXID": "SPDXRef-1"},
                {"name": "openssl", "versionInfo": "3.0.11-1", "externalRefs": [
                    {"referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:x"},
                    {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:deb/debian/openssl?distro=debian-12"},
                ]},
            ],
        })
    }

    fn shown(bom: &Bom) -> Vec<(String, Option<String>)> {
        bom.packages().iter().map(|package| (package.name.clone(), package.version.clone())).collect()
    }

    #[test]
    fn packages_are_read_from_either_form() {
        let found = Bom::parse(spdx().to_string().as_bytes()).unwrap();
        assert_eq!(shown(&found), [("hello".into(), None), ("openssl".into(), Some("3.0.11-1".into()))]);
        let cyclonedx = json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5",
            "components": [{"type": "library", "name": "a", "version": "1", "components": [
                {"name": "b", "purl": "pkg:cargo/b@2.0.0"},
            ]}],
        });
        let found = Bom::parse(cyclonedx.to_string().as_bytes()).unwrap();
        assert_eq!(shown(&found), [("a".into(), Some("1".into())), ("b".into(), Some("2.0.0".into()))]);
    }

    #[test]
    fn a_bill_comes_in_a_statement_too() {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": [{}], "predicateType": "https://spdx.dev/Document",
            "predicate": spdx(),
        });
        let sealed = |statement: &Value| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
            Attestation::parse(Dsse::seal(PAYLOAD_TYPE_IN_TOTO, statement.to_string().as_bytes(), &[&key]).as_bytes())
                .unwrap()
        };
        let found = Bom::of_statement(&sealed(&statement)).unwrap().unwrap();
        assert_eq!(found, Bom::parse(spdx().to_string().as_bytes()).unwrap());
        let mut other = statement;
        other["predicateType"] = json!("https://example.org/x");
        assert_eq!(Bom::of_statement(&sealed(&other)), None);
    }

    #[test]
    fn what_names_no_packages_is_no_answer() {
        for (bad, says) in [
            (json!({}), "neither"),
            (json!([]), "neither"),
            (json!({"spdxVersion": "SPDX-2.3"}), "no packages"),
            (json!({"spdxVersion": "SPDX-3.0", "packages": [{"name": "a"}]}), "neither"),
            (json!({"bomFormat": "CycloneDX", "components": []}), "no packages"),
            (json!({"bomFormat": "Other", "components": [{"name": "a"}]}), "neither"),
            (json!({"spdxVersion": "SPDX-2.3", "bomFormat": "CycloneDX"}), "neither"),
            (json!({"spdxVersion": "SPDX-2.3", "packages": [{}]}), "name"),
        ] {
            let refused = Bom::parse(bad.to_string().as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(says), "{bad}: {refused}");
        }
    }
}
