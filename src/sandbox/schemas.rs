//! The schemas that an instance advertises: boilerplate of RFC 7643 with every field written out,
//! much of which it cannot store (facts page, section 9.3).

use super::column::{CORE_USER, ENTERPRISE_USER, SERVICENOW_USER};
use super::group::CORE_GROUP;
use super::json::Object;
use super::table::Table;

/// One schema.
pub(super) struct Schema {
    /// Its URN.
    pub urn: &'static str,
    name: &'static str,
    description: &'static str,
    attributes: Vec<Attribute>,
}

struct Attribute {
    name: &'static str,
    kind: Kind,
    many: bool,
    required: bool,
    mutability: &'static str,
    returned: &'static str,
    uniqueness: &'static str,
    values: &'static [&'static str],
    subs: Vec<Attribute>,
}

enum Kind {
    Text,
    Flag,
    Complex,
    Link(&'static [&'static str]),
    Bytes,
}

impl Schema {
    /// All that are advertised.
    #[must_use]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![
            core_user(),
            enterprise_user(),
            servicenow_user(),
            core_group(),
        ];
        all.extend(Table::ALL.map(|table| Self {
            urn: table.schema(),
            name: table.resource_type(),
            description: table.resource_type(),
            attributes: vec![Attribute::text("name").required().read_only()],
        }));
        all
    }

    /// Writes what stands between `id` and `meta`.
    pub(super) fn write(&self, o: &mut Object<'_>) {
        o.text("name", self.name);
        o.text("description", self.description);
        write_all("attributes", &self.attributes, o);
    }
}

impl Attribute {
    fn of(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            many: false,
            required: false,
            mutability: "readWrite",
            returned: "default",
            uniqueness: "none",
            values: &[],
            subs: Vec::new(),
        }
    }

    fn text(name: &'static str) -> Self {
        Self::of(name, Kind::Text)
    }

    fn complex(name: &'static str, subs: Vec<Self>) -> Self {
        Self {
            subs,
            ..Self::of(name, Kind::Complex)
        }
    }

    /// A multi-valued attribute in the shape of RFC 7643 section 2.4.
    fn values(name: &'static str, kinds: &'static [&'static str]) -> Self {
        let mut subs = vec![Self::text("value"), Self::text("display")];
        subs.push(Self {
            values: kinds,
            ..Self::text("type")
        });
        subs.push(Self::of("primary", Kind::Flag));
        Self::complex(name, subs).many()
    }

    fn many(mut self) -> Self {
        self.many = true;
        self
    }

    fn required(mut self) -> Self {
        self.required = true;
        self
    }

    fn read_only(mut self) -> Self {
        self.mutability = "readOnly";
        self
    }

    fn write(&self, o: &mut Object<'_>) {
        o.text("name", self.name);
        o.text(
            "type",
            match self.kind {
                Kind::Text => "string",
                Kind::Flag => "boolean",
                Kind::Complex => "complex",
                Kind::Link(_) => "reference",
                Kind::Bytes => "binary",
            },
        );
        o.literal("multiValued", self.many);
        o.text("description", self.name);
        o.literal("required", self.required);
        o.literal(
            "caseExact",
            matches!(self.kind, Kind::Link(_) | Kind::Bytes),
        );
        o.text("mutability", self.mutability);
        o.text("returned", self.returned);
        o.text("uniqueness", self.uniqueness);
        if !self.values.is_empty() {
            o.texts("canonicalValues", self.values);
        }
        if let Kind::Link(types) = self.kind {
            o.texts("referenceTypes", types);
        }
        if !self.subs.is_empty() {
            write_all("subAttributes", &self.subs, o);
        }
    }
}

fn write_all(key: &str, attributes: &[Attribute], o: &mut Object<'_>) {
    o.array(key, |array| {
        for attribute in attributes {
            array.object(|o| attribute.write(o));
        }
    });
}

fn core_user() -> Schema {
    let text = Attribute::text;
    Schema {
        urn: CORE_USER,
        name: "User",
        description: "User Account",
        attributes: vec![
            Attribute {
                uniqueness: "server",
                ..text("userName").required()
            },
            Attribute::complex(
                "name",
                vec![
                    text("formatted"),
                    text("familyName"),
                    text("givenName"),
                    text("middleName"),
                    text("honorificPrefix"),
                    text("honorificSuffix"),
                ],
            ),
            text("displayName"),
            text("nickName"),
            Attribute::of("profileUrl", Kind::Link(&["external"])),
            text("title"),
            text("userType"),
            text("preferredLanguage"),
            text("locale"),
            text("timezone"),
            Attribute::of("active", Kind::Flag),
            Attribute {
                mutability: "writeOnly",
                returned: "never",
                ..text("password")
            },
            Attribute::values("emails", &["work", "home", "other"]),
            Attribute::values(
                "phoneNumbers",
                &["work", "home", "mobile", "fax", "pager", "other"],
            ),
            Attribute::values(
                "ims",
                &["aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"],
            ),
            Attribute::complex(
                "photos",
                vec![
                    Attribute::of("value", Kind::Link(&["external"])),
                    text("display"),
                    Attribute {
                        values: &["photo", "thumbnail"],
                        ..text("type")
                    },
                    Attribute::of("primary", Kind::Flag),
                ],
            )
            .many(),
            Attribute::complex(
                "addresses",
                vec![
                    text("formatted"),
                    text("streetAddress"),
                    text("locality"),
                    text("region"),
                    text("postalCode"),
                    text("country"),
                    Attribute {
                        values: &["work", "home", "other"],
                        ..text("type")
                    },
                    Attribute::of("primary", Kind::Flag),
                ],
            )
            .many(),
            Attribute::complex(
                "groups",
                vec![
                    text("value").read_only(),
                    Attribute::of("$ref", Kind::Link(&["User", "Group"])).read_only(),
                    text("display").read_only(),
                    Attribute {
                        values: &["direct", "indirect"],
                        ..text("type").read_only()
                    },
                ],
            )
            .many()
            .read_only(),
            Attribute::values("entitlements", &[]),
            Attribute::values("roles", &[]),
            Attribute::complex(
                "x509Certificates",
                vec![
                    Attribute::of("value", Kind::Bytes),
                    text("display"),
                    text("type"),
                    Attribute::of("primary", Kind::Flag),
                ],
            )
            .many(),
        ],
    }
}

fn enterprise_user() -> Schema {
    let text = Attribute::text;
    Schema {
        urn: ENTERPRISE_USER,
        name: "EnterpriseUser",
        description: "Enterprise User",
        attributes: vec![
            text("employeeNumber"),
            text("costCenter"),
            text("organization"),
            text("division"),
            text("department"),
            Attribute::complex(
                "manager",
                vec![
                    text("value"),
                    Attribute::of("$ref", Kind::Link(&["User"])),
                    text("displayName").read_only(),
                ],
            ),
        ],
    }
}

fn servicenow_user() -> Schema {
    let text = Attribute::text;
    let to = |name: &'static str, label: &'static str, link: Attribute| {
        Attribute::complex(name, vec![text("value"), text(label).read_only(), link])
    };
    let name_of = |name: &'static str, types: &'static [&'static str]| {
        let link = Attribute::of("$ref", Kind::Link(types));
        to(name, "name", link.read_only())
    };
    let person = Attribute::of("$ref", Kind::Link(&["User"]));
    Schema {
        urn: SERVICENOW_USER,
        name: "ServiceNowUser",
        description: "ServiceNow User",
        attributes: vec![
            text("employeeNumber"),
            text("gender"),
            name_of("costCenter", &["CostCenter"]),
            name_of("company", &["Company"]),
            name_of("department", &["Department"]),
            // As in the enterprise extension (RFC 7643 section 8.7.1).
            to("manager", "displayName", person),
            name_of("location", &["Location"]),
        ],
    }
}

fn core_group() -> Schema {
    let text = Attribute::text;
    let immutable = |attribute: Attribute| Attribute {
        mutability: "immutable",
        ..attribute
    };
    Schema {
        urn: CORE_GROUP,
        name: "Group",
        description: "Group",
        attributes: vec![
            Attribute {
                uniqueness: "server",
                ..text("displayName").required()
            },
            Attribute::complex(
                "members",
                vec![
                    immutable(text("value")),
                    immutable(Attribute::of("$ref", Kind::Link(&["User", "Group"]))),
                    text("display").read_only(),
                ],
            )
            .many(),
        ],
    }
}
