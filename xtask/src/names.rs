//! Small tables of names and telephone numbering plans, for `generate`.
//!
//! Domains are the reserved ones (RFC 2606 and RFC 6761), so that no generated address is somebody's. Numbers
//! are valid in their plan, and may therefore belong to someone: nothing here ever calls or writes to them.

/// A country as far as an account shows it.
pub(crate) struct Country {
    pub(crate) locale: &'static str,
    pub(crate) time_zone: &'static str,
    /// Calling code, without the plus.
    pub(crate) calling_code: &'static str,
    /// First digits of mobile numbers.
    pub(crate) mobile_prefixes: &'static [&'static str],
    /// Digits after the prefix.
    pub(crate) subscriber_digits: u32,
    pub(crate) given_names: &'static [&'static str],
    pub(crate) family_names: &'static [&'static str],
}

/// Where the generated customers live.
pub(crate) const COUNTRIES: [Country; 12] = [
    Country {
        locale: "de-DE",
        time_zone: "Europe/Berlin",
        calling_code: "49",
        mobile_prefixes: &[
            "1512", "1514", "1520", "1573", "1590", "1601", "1705", "1716", "1722", "1761",
        ],
        subscriber_digits: 7,
        given_names: &[
            "Anna", "Jürgen", "Lena", "Björn", "Sabine", "Max", "Käthe", "Felix", "Jörg", "Mia", "Ute",
            "Paul",
        ],
        family_names: &[
            "Müller", "Schmidt", "Weiß", "Schäfer", "Köhler", "Vogel", "Groß", "Krüger", "Jäger", "Lang",
        ],
    },
    Country {
        locale: "fr-FR",
        time_zone: "Europe/Paris",
        calling_code: "33",
        mobile_prefixes: &["612", "623", "634", "645", "656", "667", "678", "689"],
        subscriber_digits: 6,
        given_names: &[
            "Zoé",
            "Émile",
            "Chloé",
            "Hélène",
            "François",
            "Anaïs",
            "Noël",
            "Camille",
            "Lucas",
            "Inès",
        ],
        family_names: &[
            "Lefèvre",
            "Bélanger",
            "Dubois",
            "Moreau",
            "Garnier",
            "Faure",
            "Chevalier",
            "Perrin",
            "Gauthier",
        ],
    },
    Country {
        locale: "en-GB",
        time_zone: "Europe/London",
        calling_code: "44",
        mobile_prefixes: &["7400", "7411", "7425", "7500", "7700", "7712", "7801", "7912"],
        subscriber_digits: 6,
        given_names: &[
            "Oliver", "Amelia", "Harry", "Isla", "Siân", "Callum", "Niamh", "Rhys", "Poppy", "Alfie",
        ],
        family_names: &[
            "Smith",
            "O'Connor",
            "Hughes",
            "MacLeod",
            "Taylor",
            "Wright-Jones",
            "Patel",
            "Evans",
            "Clarke",
        ],
    },
    Country {
        locale: "en-US",
        time_zone: "America/Chicago",
        calling_code: "1",
        mobile_prefixes: &[
            "2012", "2023", "2124", "3125", "4155", "5126", "6177", "7138", "2069",
        ],
        subscriber_digits: 6,
        given_names: &[
            "James", "Maria", "Robert", "Linda", "Michael", "Keisha", "DeShawn", "Emily", "José", "Hannah",
        ],
        family_names: &[
            "Johnson", "Garcia", "Williams", "Nguyen", "Brown", "Martinez", "O'Neill", "Davis", "Kim",
        ],
    },
    Country {
        locale: "es-ES",
        time_zone: "Europe/Madrid",
        calling_code: "34",
        mobile_prefixes: &[
            "600", "611", "622", "633", "644", "655", "666", "677", "688", "699",
        ],
        subscriber_digits: 6,
        given_names: &[
            "Lucía",
            "Íñigo",
            "Begoña",
            "Andrés",
            "Núria",
            "Iker",
            "María José",
            "Álvaro",
            "Sofía",
        ],
        family_names: &[
            "García Ibáñez",
            "Muñoz",
            "Núñez",
            "Peña",
            "Ordóñez",
            "Castaño",
            "Romero",
            "Vidal",
        ],
    },
    Country {
        locale: "it-IT",
        time_zone: "Europe/Rome",
        calling_code: "39",
        mobile_prefixes: &["320", "328", "333", "340", "347", "349", "366", "380", "391"],
        subscriber_digits: 7,
        given_names: &[
            "Giulia",
            "Niccolò",
            "Francesca",
            "Matteo",
            "Noemi",
            "Lorenzo",
            "Chiara",
            "Davide",
        ],
        family_names: &[
            "Rossi",
            "Dell'Acqua",
            "D'Angelo",
            "Bianchi",
            "Esposito",
            "Ricci",
            "Marino",
            "Conti",
        ],
    },
    Country {
        locale: "pl-PL",
        time_zone: "Europe/Warsaw",
        calling_code: "48",
        mobile_prefixes: &[
            "501", "512", "603", "606", "665", "692", "721", "784", "795", "886",
        ],
        subscriber_digits: 6,
        given_names: &[
            "Łukasz",
            "Małgorzata",
            "Zofia",
            "Paweł",
            "Wojciech",
            "Agnieszka",
            "Stanisław",
            "Ewa",
        ],
        family_names: &[
            "Kowalska",
            "Wiśniewski",
            "Wójcik",
            "Lewandowska",
            "Dąbrowski",
            "Zając",
            "Szymański",
        ],
    },
    Country {
        locale: "sv-SE",
        time_zone: "Europe/Stockholm",
        calling_code: "46",
        mobile_prefixes: &[
            "701", "702", "703", "704", "705", "707", "708", "730", "735", "760",
        ],
        subscriber_digits: 6,
        given_names: &[
            "Åsa", "Björn", "Elsa", "Göran", "Linnéa", "Märta", "Oskar", "Sören", "Wilma",
        ],
        family_names: &[
            "Andersson",
            "Öberg",
            "Sjöström",
            "Åkesson",
            "Lindqvist",
            "Nyström",
            "Holm",
        ],
    },
    Country {
        locale: "ja-JP",
        time_zone: "Asia/Tokyo",
        calling_code: "81",
        mobile_prefixes: &["7012", "8023", "8034", "9012", "9023", "9034", "9045", "9056"],
        subscriber_digits: 6,
        given_names: &[
            "Haruto", "Yui", "Sota", "Aoi", "Ren", "Hina", "Yūto", "Sakura", "Takumi",
        ],
        family_names: &[
            "Satō",
            "Suzuki",
            "Takahashi",
            "Tanaka",
            "Itō",
            "Watanabe",
            "Kobayashi",
        ],
    },
    Country {
        locale: "pt-BR",
        time_zone: "America/Sao_Paulo",
        calling_code: "55",
        mobile_prefixes: &[
            "11981", "11994", "21972", "21985", "31991", "41996", "51983", "61992",
        ],
        subscriber_digits: 6,
        given_names: &[
            "João",
            "Mariana",
            "Luís",
            "Conceição",
            "Antônio",
            "Beatriz",
            "Gonçalo",
            "Rafaela",
        ],
        family_names: &[
            "da Silva",
            "Souza",
            "Gonçalves",
            "Araújo",
            "de Oliveira",
            "Simões",
            "Magalhães",
        ],
    },
    Country {
        locale: "hi-IN",
        time_zone: "Asia/Kolkata",
        calling_code: "91",
        mobile_prefixes: &["9810", "9820", "9845", "9876", "8800", "7700", "9900", "9440"],
        subscriber_digits: 6,
        given_names: &[
            "Aarav", "Priya", "Rohan", "Ananya", "Vikram", "Kavya", "Arjun", "Meera",
        ],
        family_names: &["Sharma", "Iyer", "Patel", "Reddy", "Banerjee", "Chopra", "Nair"],
    },
    Country {
        locale: "tr-TR",
        time_zone: "Europe/Istanbul",
        calling_code: "90",
        mobile_prefixes: &["501", "505", "530", "532", "535", "541", "542", "551", "555"],
        subscriber_digits: 7,
        given_names: &["Işıl", "Çağrı", "Şule", "Gökhan", "Ümit", "İpek", "Öykü", "Tuğba"],
        family_names: &["Yılmaz", "Öztürk", "Şahin", "Çelik", "Kılıç", "Doğan", "Aydın"],
    },
];

/// Mail domains; one of them internationalised.
pub(crate) const DOMAINS: [&str; 7] = [
    "example.com",
    "example.org",
    "example.net",
    "mail.example.com",
    "post.example.org",
    "bücher.example",
    "inbox.test",
];

/// Customer tiers.
pub(crate) const TIERS: [&str; 4] = ["basic", "silver", "gold", "staff"];

/// What a customer may be interested in.
pub(crate) const INTERESTS: [&str; 8] = [
    "garden",
    "books",
    "cycling",
    "music",
    "travel",
    "kitchen",
    "toys",
    "electronics",
];
