//! Tables in the manner of datatrove's `test_pii_removal.py`.

use super::*;

fn format(text: &str) -> String {
    let formatter = PiiFormatter {
        email_replacement: vec!["EMAIL".into()],
        ip_replacement: vec!["IP".into()],
        ..PiiFormatter::default()
    };
    formatter.format(text, &mut PiiTurns::default()).unwrap_or_else(|| text.to_owned())
}

const TABLE: &[(&str, &str)] = &[
    ("999.999.999.999.", "999.999.999.999."),
    ("108.0.0.01", "108.0.0.01"),
    ("0.1.2.3", "0.1.2.3"),
    ("00.0000.00.00", "00.0000.00.00"),
    ("192.168.l.1", "192.168.l.1"),
    ("912.456.123.123", "912.456.123.123"),
    (".3.3.3.0", ".IP"),
    ("192.168.o.0", "192.168.o.0"),
    ("172.16.0.9", "172.16.0.9"),
    ("172.16.4.1", "172.16.4.1"),
    ("172.17.1.1", "172.17.1.1"),
    ("127.0.0.2", "127.0.0.2"),
    ("10.0.1.5", "10.0.1.5"),
    ("10.0.0.1", "10.0.0.1"),
    ("10.155.155.155", "10.155.155.155"),
    ("10.255.255.254", "10.255.255.254"),
    ("172.16.0.4", "172.16.0.4"),
    ("172.16.0.1", "172.16.0.1"),
    ("172.17.1.1", "172.17.1.1"),
    ("172.31.254.254", "172.31.254.254"),
    ("192.168.1.2", "192.168.1.2"),
    ("192.168.254.0", "192.168.254.0"),
    ("163.36.107.25", "IP"),
    ("114.35.103.54", "IP"),
    ("57.120.21.121", "IP"),
    ("13.83.69.70", "IP"),
    ("29.116.31.158", "IP"),
    ("193.163.229.23", "IP"),
    ("211.160.67.46", "IP"),
    ("4.132.211.142", "IP"),
    ("214.70.227.4", "IP"),
    ("35.88.121.75", "IP"),
    ("List of Valid Email Addresses", "List of Valid Email Addresses"),
    ("email@example.com", "EMAIL"),
    ("firstname.lastname@example.com", "EMAIL"),
    ("email@subdomain.example.com", "EMAIL"),
    ("firstname+lastname@example.com", "EMAIL"),
    ("email@123.123.123.123", "EMAIL"),
    ("email@[123.123.123.123]", "EMAIL"),
    (r#""email"@example.com"#, r#""email"@example.com"#),
    ("1234567890@example.com", "EMAIL"),
    ("email@example-one.com", "EMAIL"),
    ("_______@example.com", "EMAIL"),
    ("email@example.name", "EMAIL"),
    ("email@example.museum", "EMAIL"),
    ("email@example.co.jp", "EMAIL"),
    ("firstname-lastname@example.com", "EMAIL"),
    ("NAME@MYSITE.COM", "EMAIL"),
    ("List of Strange Valid Email Addresses", "List of Strange Valid Email Addresses"),
    (r"much.”more\ unusual”@example.com", r"much.”more\ unusual”@example.com"),
    ("very.unusual.”@”.unusual.com@example.com", "very.unusual.”@”.EMAIL"),
    (
        r#"very.”(),:;<>[]”.VERY.”very@\ "very”.unusual@strange.example.com"#,
        r#"very.”(),:;<>[]”.VERY.”very@\ "very”.EMAIL"#,
    ),
    ("List of Invalid Email Addresses", "List of Invalid Email Addresses"),
    ("plainaddress", "plainaddress"),
    ("#@%^%#$@#$@#.com", "#@%^%#$@#$@#.com"),
    ("@example.com", "@example.com"),
    ("Joe Smith <email@example.com>", "Joe Smith <EMAIL>"),
    ("email.example.com", "email.example.com"),
    ("email@example@example.com", "email@EMAIL"),
    (".email@example.com", ".EMAIL"),
    ("email.@example.com", "email.@example.com"),
    ("email..email@example.com", "email..EMAIL"),
    ("あいうえお@example.com", "あいうえお@example.com"),
    ("email@example.com (Joe Smith)", "EMAIL (Joe Smith)"),
    ("email@example", "email@example"),
    ("email@-example.com", "email@-example.com"),
    ("email@example.web", "EMAIL"),
    ("email@111.222.333.44444", "EMAIL"),
    ("email@example..com", "email@example..com"),
    ("Abc..123@example.com", "Abc..EMAIL"),
    ("List of Strange Invalid Email Addresses", "List of Strange Invalid Email Addresses"),
    (r"”(),:;<>[\]@example.com", r"”(),:;<>[\]@example.com"),
    ("just”not”right@example.com", "just”not”EMAIL"),
    (r#"this\ is"really"not\allowed@example.com"#, r#"this\ is"really"not\EMAIL"#),
];

#[test]
fn addresses_of_the_table_become_what_datatrove_makes_of_them() {
    for &(text, expected) in TABLE {
        assert_eq!(format(text), expected, "{text:?}");
    }
}

#[test]
fn what_python_calls_global_is() {
    let not = "0.1.1.1 10.1.1.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1 172.16.0.0 172.31.9.9 192.0.0.1 192.0.2.1 192.168.9.9 \
        198.18.0.1 198.19.9.9 198.51.100.7 203.0.113.9 240.0.0.1 255.255.255.255 01.2.3.4";
    not.split_whitespace().for_each(|address| assert!(!is_public(address, true), "{address}"));
    let global = "8.8.8.8 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 192.1.1.1 192.88.99.1 198.17.0.1 198.20.0.1 224.0.0.1 \
        239.9.9.9 203.0.114.1 169.253.0.1";
    global.split_whitespace().for_each(|address| assert!(is_public(address, true), "{address}"));
    assert!(is_public("10.0.0.1", false) && !is_public("10.0.0.01", false));
}

#[test]
fn replacements_take_turns() {
    let mut turns = PiiTurns::default();
    let formatter = PiiFormatter::default();
    let found = formatter.format("a@b.co, c@d.co; e@f.co and 8.8.8.8, 10.0.0.1", &mut turns);
    let expected = "email@example.com, firstname.lastname@example.org; email@example.com and 22.214.171.124, 10.0.0.1";
    assert_eq!(found.as_deref(), Some(expected));
    assert_eq!(
        formatter.format("x@y.org 9.9.9.9", &mut turns).as_deref(),
        Some("firstname.lastname@example.org 126.96.36.199")
    );
    assert_eq!(formatter.format("nobody here", &mut turns), None);
}
