//! The words that names, titles and places of a generated organisation are made of. Invented people.

/// Given names.
pub(super) const FIRST_NAMES: &[&str] = &[
    "Noor", "Ilse", "Mateo", "Yuki", "Amara", "Søren", "Priya", "Tomás", "Zoë", "Kwame", "Ingrid",
    "Rafael", "Aiko", "Lena", "Omar", "Chiara", "Dmitri", "Fatima", "Björn", "Mei", "Liam", "Olga",
    "Hassan", "Greta", "Pablo", "Sana", "Viktor", "Anaïs", "Joon", "Nadia", "Emre", "Rosa", "Åse",
    "Tariq", "Maud", "Ivo", "Leila", "Oskar", "Renée", "Kofi",
];

/// Family names.
pub(super) const LAST_NAMES: &[&str] = &[
    "Valdimar",
    "Okonkwo",
    "Brandt",
    "Tanaka",
    "Ferreira",
    "Ödegård",
    "Iyer",
    "Novák",
    "Haddad",
    "Mensah",
    "Lindqvist",
    "Moreau",
    "Kowalski",
    "Nakamura",
    "Rossi",
    "Petrov",
    "Schäfer",
    "Núñez",
    "Chen",
    "O'Brien",
    "Yılmaz",
    "Andersen",
    "Dubois",
    "Silva",
    "Kim",
    "Papadopoulos",
    "Hughes",
    "Virtanen",
    "García",
    "Farouk",
    "van Dijk",
    "Horváth",
    "Achebe",
    "Lund",
    "Castillo",
    "Weiss",
    "Popescu",
    "Singh",
    "Abe",
    "Mbeki",
];

/// What stands before a job.
pub(super) const RANKS: &[&str] = &["", "", "", "Junior ", "Senior ", "Principal ", "Lead "];

/// What people do.
pub(super) const JOBS: &[&str] = &[
    "Reliability Engineer",
    "Account Executive",
    "Financial Analyst",
    "Support Specialist",
    "Software Developer",
    "Recruiter",
    "Product Owner",
    "Data Engineer",
    "Legal Counsel",
    "Service Desk Agent",
    "Field Technician",
    "Network Engineer",
    "Controller",
    "UX Designer",
];

/// Titles that a form accepts all the same (facts page, Q33).
pub(super) const ODD_TITLES: [&str; 4] = [
    "Support Specialist  ",
    "Leiter\r\nRechenzentrum",
    "技術部長 / مدير",
    "R&amp;D <Lead> \"Ops\"",
];

/// What machines' accounts are called after.
pub(super) const MACHINES: &[&str] = &[
    "inventory",
    "monitoring",
    "backup",
    "midserver",
    "reporting",
];

/// Companies.
pub(super) const COMPANIES: &[&str] = &[
    "Example Holding",
    "Example Nordic AS",
    "Example Iberia SA",
    "Example Logistics GmbH",
    "Example Research Ltd",
    "Example Asia KK",
    "Example Energy SpA",
    "Example Retail SAS",
];

/// Departments.
pub(super) const DEPARTMENTS: &[&str] = &[
    "Platform Operations",
    "Finance",
    "Human Resources",
    "Sales",
    "Customer Support",
    "Legal",
    "Product",
    "Data & Analytics",
    "Procurement",
    "Marketing",
    "Facilities",
    "Research",
    "IT",
    "Security",
    "Quality",
    "Logistics",
];

/// What tells departments of one name apart, mostly.
pub(super) const SITES: &[&str] = &[
    "",
    " North",
    " South",
    " East",
    " West",
    " Nordic",
    " Iberia",
    " Asia",
    "",
    " II",
    " III",
    " Europe",
    " Americas",
    " Africa",
    " Central",
    " Online",
];

/// What a group of a department is there for: behind the department's name.
pub(super) const DUTIES: &[&str] = &["", " Support", " Approvers", " On Call", " Change Board"];

/// Cities: name, country, time zone as it is stored (not always an IANA name), language.
pub(super) const CITIES: &[(&str, &str, &str, &str)] = &[
    ("Oslo", "NO", "Europe/Oslo", "en"),
    ("Bergen", "NO", "Europe/Oslo", "nb"),
    ("Berlin", "DE", "Europe/Berlin", "de"),
    ("Lisboa", "PT", "Europe/Lisbon", "pt"),
    ("Madrid", "ES", "Europe/Madrid", "es"),
    ("Kraków", "PL", "Europe/Warsaw", "pl"),
    ("Tokyo", "JP", "Asia/Tokyo", "ja"),
    ("Accra", "GH", "Africa/Accra", "en"),
    ("Chicago", "US", "US/Central", "en"),
    ("Boston", "US", "ET", "en"),
    ("Pune", "IN", "Asia/Kolkata", "en"),
    ("São Paulo", "BR", "Brazil/East", "pb"),
];
