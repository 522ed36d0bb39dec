//! Character references by their names.

/// The names of U+00A0 to U+00FF, in order.
const LATIN: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn \
    sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde \
    Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde \
    Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig \
    ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide \
    oslash ugrave uacute ucirc uuml yacute thorn yuml";

/// Other frequent names, each with its character.
const OTHERS: &str = "amp & lt < gt > quot \" apos ' OElig Œ oelig œ Scaron Š scaron š Yuml Ÿ fnof ƒ circ ˆ tilde ˜ \
    zwnj \u{200c} zwj \u{200d} lrm \u{200e} rlm \u{200f} ndash – mdash — lsquo ‘ rsquo ’ sbquo ‚ ldquo “ rdquo ” \
    bdquo „ dagger † Dagger ‡ bull • hellip … permil ‰ prime ′ Prime ″ lsaquo ‹ rsaquo › oline ‾ frasl ⁄ euro € \
    trade ™ larr ← uarr ↑ rarr → darr ↓ harr ↔ part ∂ prod ∏ sum ∑ minus − radic √ infin ∞ cap ∩ int ∫ asymp ≈ ne ≠ \
    equiv ≡ le ≤ ge ≥ alpha α beta β gamma γ delta δ epsilon ε zeta ζ eta η theta θ iota ι kappa κ lambda λ mu μ nu \
    ν xi ξ omicron ο pi π rho ρ sigmaf ς sigma σ tau τ upsilon υ phi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ \
    Lambda Λ Xi Ξ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω";

/// The character that `&name;` stands for: the frequent names, and all numbers (`#233`, `#xE9`).
///
/// Numbers from 128 to 159 are those of Windows-1252, as in browsers.
pub(crate) fn reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return match code {
            0 => None,
            0x80..0xa0 => encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[code as u8]).0.chars().next(),
            _ => char::from_u32(code),
        };
    }
    if let Some(at) = LATIN.split_ascii_whitespace().position(|known| known == name) {
        return char::from_u32(0xa0 + at as u32);
    }
    let mut others = OTHERS.split_ascii_whitespace();
    while let (Some(known), Some(c)) = (others.next(), others.next()) {
        if known == name {
            return c.chars().next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_browsers() {
        let check = |name: &str, expected: Option<char>| assert_eq!(reference(name), expected, "{name}");
        check("nbsp", Some('\u{a0}'));
        check("times", Some('×'));
        check("yuml", Some('ÿ'));
        check("Omega", Some('Ω'));
        check("amp", Some('&'));
        check("#39", Some('\''));
        check("#xE9", Some('é'));
        check("#150", Some('–'));
        for name in ["", "&", "é", "nothing", "#", "#x", "#0", "#xD800", "#99999999999"] {
            check(name, None);
        }
    }
}
