//! The discovery documents, which need no log-in (facts page, section 9.3).

use super::column::{CORE_USER, ENTERPRISE_USER, SERVICENOW_USER};
use super::error::Refusal;
use super::group::CORE_GROUP;
use super::json::{self, Object};
use super::schemas::Schema;
use super::table::Table;

const RESOURCE_TYPE: &str = "urn:ietf:params:scim:schemas:core:2.0:ResourceType";
const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";

/// `/ServiceProviderConfig`. It says that sorting is unsupported, and does not tell the truth.
#[must_use]
pub(super) fn config() -> Vec<u8> {
    let mut out = Vec::new();
    let supported = |supported: bool| move |o: &mut Object<'_>| o.literal("supported", supported);
    json::object(&mut out, |o| {
        o.texts(
            "schemas",
            &["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        );
        o.object("patch", supported(true));
        o.object("bulk", |bulk| {
            bulk.literal("supported", false);
            bulk.literal("maxOperations", 0);
            bulk.literal("maxPayloadSize", 1_000_000);
        });
        o.object("filter", |filter| {
            filter.literal("supported", true);
            filter.literal("maxResults", 500);
        });
        o.object("changePassword", supported(false));
        o.object("sort", supported(false));
        o.object("etag", supported(false));
        o.objects(
            "authenticationSchemes",
            &[&|scheme: &mut Object<'_>| {
                scheme.text("name", "OAuth 2.0 Bearer Token");
                scheme.text(
                    "description",
                    "Authentication scheme using the OAuth 2.0 Bearer Token standard",
                );
                scheme.text("specUri", "https://www.rfc-editor.org/info/rfc6750");
                scheme.text("type", "oauthbearertoken");
                scheme.literal("primary", true);
            }],
        );
    });
    out
}

/// `/ResourceTypes`, or one of them.
///
/// # Errors
/// 404 for a name that there is not.
pub(super) fn resource_types(name: Option<&str>, base: &str) -> Result<Vec<u8>, Refusal> {
    let known = ["User", "Group"]
        .into_iter()
        .chain(Table::ALL.map(Table::resource_type));
    one_or_all(name, "ResourceType", known.collect(), |name, o| {
        o.texts("schemas", &[RESOURCE_TYPE]);
        o.text("id", name);
        o.text("name", name);
        let table = Table::ALL.into_iter().find(|t| t.resource_type() == name);
        match table {
            None if name == "Group" => {
                o.text("description", "Group");
                o.text("endpoint", "/Groups");
                o.text("schema", CORE_GROUP);
            }
            None => {
                o.text("description", "User Account");
                o.text("endpoint", "/Users");
                o.text("schema", CORE_USER);
                o.array("schemaExtensions", |extensions| {
                    for urn in [ENTERPRISE_USER, SERVICENOW_USER] {
                        extensions.object(|extension| {
                            extension.text("schema", urn);
                            extension.literal("required", false);
                        });
                    }
                });
            }
            Some(table) => {
                o.text("description", name);
                o.text("endpoint", &format!("/{}", table.endpoint()));
                o.text("schema", table.schema());
            }
        }
        meta(o, "ResourceType", &format!("{base}/ResourceTypes/{name}"));
    })
}

/// `/Schemas`, or one of them.
///
/// # Errors
/// 404 for a URN that there is not.
pub(super) fn schemas(urn: Option<&str>, base: &str) -> Result<Vec<u8>, Refusal> {
    let all = Schema::all();
    let known = all.iter().map(|schema| schema.urn).collect();
    one_or_all(urn, "Schema", known, |urn, o| {
        o.texts("schemas", &[SCHEMA]);
        o.text("id", urn);
        if let Some(schema) = all.iter().find(|schema| schema.urn == urn) {
            schema.write(o);
        }
        meta(o, "Schema", &format!("{base}/Schemas/{urn}"));
    })
}

fn one_or_all(
    wanted: Option<&str>,
    what: &str,
    known: Vec<&str>,
    write: impl Fn(&str, &mut Object<'_>),
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    if let Some(wanted) = wanted {
        if !known.contains(&wanted) {
            return Err(Refusal::scim(
                404,
                None,
                format!("{what} not found {wanted}"),
            ));
        }
        json::object(&mut out, |o| write(wanted, o));
        return Ok(out);
    }
    json::object(&mut out, |o| {
        o.texts(
            "schemas",
            &["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        );
        o.literal("totalResults", known.len());
        o.array("Resources", |array| {
            for one in &known {
                array.object(|o| write(one, o));
            }
        });
        o.literal("startIndex", 1);
        o.literal("itemsPerPage", known.len());
    });
    Ok(out)
}

fn meta(o: &mut Object<'_>, resource_type: &str, location: &str) {
    o.object("meta", |meta| {
        meta.text("resourceType", resource_type);
        meta.text("location", location);
    });
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Testbed;

    #[test]
    fn six_resource_types_and_eight_schemas_are_advertised() {
        let bed = Testbed::of(0);
        let types = bed.get("/ResourceTypes");
        assert_eq!(
            types.ids(),
            [
                "User",
                "Group",
                "Company",
                "CostCenter",
                "Department",
                "Location"
            ]
        );
        let group = bed.get("/ResourceTypes/Group").json;
        assert_eq!(group, types.rows()[1]);
        assert_eq!(group["endpoint"], "/Groups");
        assert!(group.get("schemaExtensions").is_none());

        let schemas = bed.get("/Schemas");
        assert_eq!((schemas.total(), schemas.rows().len()), (8, 8));
        let urn = group["schema"].as_str().unwrap();
        let schema = bed.get(&format!("/Schemas/{urn}")).json;
        assert!(schemas.rows().contains(&schema));
        for (place, name) in ["displayName", "members"].into_iter().enumerate() {
            let attribute = &schema["attributes"][place];
            assert_eq!(attribute["name"], name);
            for field in ["multiValued", "required", "caseExact"] {
                assert!(attribute[field].is_boolean(), "{name} {field}");
            }
            for field in ["description", "mutability", "returned", "uniqueness"] {
                assert!(attribute[field].is_string(), "{name} {field}");
            }
        }
    }
}
