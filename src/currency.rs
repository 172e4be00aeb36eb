//! The currencies of ISO 4217, those that it has withdrawn among them, and their minor digits.

use iso_currency::Currency;

/// How many digits the minor unit of the currency `code` has: 2 for `EUR`, 0 for `JPY`, 4 for `CLF`. None when
/// ISO 4217 neither has nor had such a code (it has them in upper case only). What has no minor unit, such as gold
/// (`XAU`) or no currency at all (`XXX`), is counted in whole units: 0.
pub fn minor_digits(code: &str) -> Option<u32> {
    match Currency::from_code(code) {
        Some(currency) => Some(u32::from(currency.exponent().unwrap_or(0))),
        None => withdrawn(code),
    }
}

/// Of the codes in ISO's List Three that `iso_currency` does not have. That list has no digits. These are those
/// that ISO gave while the code was in force, as far as OpenJDK has kept them (`CurrencyData.properties`; CLDR has
/// those that are customary instead: 0 for `ZMK`), and for what was withdrawn before that 2, as CLDR has it.
fn withdrawn(code: &str) -> Option<u32> {
    match code {
        "ADP" | "BEF" | "BYB" | "BYR" | "ESP" | "GRD" | "ITL" | "LUF" | "MGF" | "PTE" | "ROL"
        | "TPE" | "TRL" => Some(0),
        // Units of account without a minor unit.
        "XEU" | "XFO" | "XFU" | "XRE" => Some(0),
        "AFA" | "ALK" | "ANG" | "AOK" | "AON" | "AOR" | "ARA" | "ARP" | "ARY" | "ATS" | "AYM"
        | "AZM" | "BAD" | "BEC" | "BEL" | "BGJ" | "BGK" | "BGL" | "BOP" | "BRB" | "BRC" | "BRE"
        | "BRN" | "BRR" | "BUK" | "CHC" | "CSD" | "CSJ" | "CSK" | "CYP" | "DDM" | "DEM" | "ECS"
        | "ECV" | "EEK" | "ESA" | "ESB" | "FIM" | "FRF" | "GEK" | "GHC" | "GHP" | "GNE" | "GNS"
        | "GQE" | "GWE" | "GWP" | "HRD" | "IEP" | "ILP" | "ILR" | "ISJ" | "LAJ" | "LSM" | "LTL"
        | "LTT" | "LUC" | "LUL" | "LVL" | "LVR" | "MLF" | "MRO" | "MTL" | "MTP" | "MVQ" | "MXP"
        | "MZE" | "MZM" | "NIC" | "NLG" | "PEH" | "PEI" | "PES" | "PLZ" | "RHD" | "ROK" | "RUR"
        | "SDD" | "SDP" | "SIT" | "SKK" | "SRG" | "STD" | "SUR" | "TJR" | "TMM" | "UAK" | "UGS"
        | "UGW" | "USS" | "UYN" | "UYP" | "VEB" | "VEF" | "VNC" | "YDD" | "YUD" | "YUM" | "YUN"
        | "ZAL" | "ZMK" | "ZRN" | "ZRZ" | "ZWC" | "ZWD" | "ZWN" | "ZWR" => Some(2),
        _ => None,
    }
}
