use super::*;
use proptest::prelude::*;
use serde_json::json;

fn run(text: &str, own: &serde_json::Value) -> Result<String, String> {
    let program = Program::compile(text)?;
    let mut budget = RULE_BUDGET;
    match program.run(Val::of(own, None), None, &mut budget) {
        Ok(value) => Ok(functions::shown(&value)),
        Err(Fault::Failed(text)) => Err(text),
        Err(Fault::Budget) => Err("budget".to_owned()),
    }
}

#[test]
fn expressions_have_the_values_that_the_language_gives_them() {
    let own = json!({"a": 1, "s": "Hello", "l": [3, 1, 2], "m": {"k": "v", "n.o": 1, "namespace": "x"}, "f": 1.5, "nil": null, "b": true,
        "o": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]});
    for (text, value) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 % 3", "-1"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0xff", "255"),
        ("1.5 + 1.5", "3"),
        ("2 > 1 && 1 >= 1", "true"),
        ("1 == 1.0", "true"),
        ("'a' + \"b\"", "ab"),
        ("r'\\d' + '\\x41\\u00e9\\n'.trim()", "\\dAé"),
        ("'''multi\nline'''.size()", "10"),
        ("self.a == 1 ? 'one' : 'other'", "one"),
        ("has(self.a) && !has(self.zzz) && !has(self.nil)", "true"),
        ("self.l[0] + self.l[2]", "5"),
        ("self.m['n.o']", "1"),
        ("self.m.__namespace__", "x"),
        ("'k' in self.m && 3 in self.l && !('z' in self.m)", "true"),
        ("self.l.all(x, x > 0) && self.l.exists(x, x == 3) && self.l.exists_one(x, x < 2)", "true"),
        ("self.l.filter(x, x > 1).map(x, x * 10)", "[30, 20]"),
        ("self.l.map(x, x > 1, x + 1)", "[4, 3]"),
        ("self.m.all(k, k.size() > 0)", "true"),
        ("self.l.all(i, v, v >= i)", "true"),
        ("self.m.transformMap(k, v, k == 'k', v)", "{k: v}"),
        ("self.o.map(x, x.name).join('-')", "x-y"),
        (
            "self.l.sum() == 6 && self.l.min() == 1 && self.l.max() == 3 && !self.l.isSorted() && self.l.sort().isSorted()",
            "true",
        ),
        ("[1, 2] + [3] == [1, 2, 3] && {'a': 1} == {'a': 1.0}", "true"),
        ("self.s.lowerAscii().replace('l', 'L', 1)", "heLlo"),
        ("self.s.substring(1, 3) + self.s.charAt(0)", "elH"),
        ("'a,b,c'.split(',', 2)", "[a, b,c]"),
        ("'abcabc'.indexOf('c') + 'abcabc'.lastIndexOf('c')", "7"),
        ("self.s.matches('^H.*o$') && self.s.startsWith('He') && self.s.contains('ell')", "true"),
        ("'x1y22'.findAll('[0-9]+')", "[1, 22]"),
        ("'%s is %d and %.2f'.format(['x', 3, 1.5])", "x is 3 and 1.50"),
        ("duration('1h') > duration('59m') && duration('90s').getMinutes() == 1", "true"),
        ("timestamp('2024-02-29T12:30:00Z').getMonth()", "1"),
        ("timestamp('2024-02-29T00:00:00Z').getDayOfWeek()", "4"),
        ("timestamp('2024-01-01T00:00:10Z') - timestamp('2024-01-01T00:00:00Z') == duration('10s')", "true"),
        ("int('42') + int(3.9)", "45"),
        ("string(1) + string(true)", "1true"),
        ("type(1) == int && type('') == string", "true"),
        (
            "url('https://u@example.org:8443/p?q=1').getHost() + url('http://[::1]:80/').getHostname()",
            "example.org:8443::1",
        ),
        ("isURL('nope') || !isIP('1.2.3.4')", "false"),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('10.0.0.0/7') && ip('::1').isLoopback()",
            "true",
        ),
        (
            "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('500m').add(quantity('500m')).asInteger() == 1",
            "true",
        ),
        ("self.?zzz.orValue('none') + self.?m.k.orValue('x')", "nonev"),
        ("self.l[?9].hasValue()", "false"),
        ("optional.of(2).optMap(x, x * 2).value()", "4"),
        ("cel.bind(x, self.a + 1, x * x)", "4"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        ("math.greatest(1, 5, 3) + math.least([4, 2])", "7"),
        ("false && (1 / 0 > 0) || true || (1 / 0 > 0)", "true"),
        ("(1 / 0 > 0) || true", "true"),
        ("self.l.exists(x, x / (x - 3) > 0 || x == 2)", "true"),
        ("b'ab' + b'c' == bytes('abc')", "true"),
        ("// a comment\n1", "1"),
        ("dyn(self.f) == 1.5 && self.f * 2 == 3.0", "true"),
    ] {
        assert_eq!(run(text, &own).as_deref(), Ok(value), "{text}");
    }
}

#[test]
fn failures_are_worded_as_the_language_words_them() {
    let own = json!({"l": [1], "s": "x"});
    for (text, fault) in [
        ("self.zzz", "no such key: zzz"),
        ("self.l[5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("self.s + 1", "no such overload"),
        ("self.s && true", "no such overload"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
    ] {
        assert_eq!(run(text, &own), Err(fault.to_owned()), "{text}");
    }
}

#[test]
fn what_does_not_compile_says_where() {
    for (text, error) in [
        ("self.a +", "ERROR: <input>:1:9: Syntax error: mismatched input '<EOF>'"),
        ("1 +\n  foo", "ERROR: <input>:2:3: undeclared reference to 'foo' (in container '')"),
        ("foo(1)", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        ("'a'.startsWith()", "ERROR: <input>:1:4: found no matching overload for 'startsWith' applied to 1 arguments"),
        ("'unterminated", "ERROR: <input>:1:1: Syntax error: unterminated string literal"),
        ("self.s.matches('(')", "ERROR: <input>:1:7: invalid matches argument: regex parse error"),
        ("has(self)", "ERROR: <input>:1:1: invalid argument to has() macro"),
        ("self.l.all(x, y)", "ERROR: <input>:1:15: undeclared reference to 'y' (in container '')"),
        ("1 2", "ERROR: <input>:1:3: Syntax error: mismatched input '2'"),
        ("#", "ERROR: <input>:1:1: Syntax error: token recognition error at: '#'"),
    ] {
        let found = Program::compile(text).map(|_| ()).unwrap_err();
        assert!(found.starts_with(error), "{text}: {found}");
    }
    assert!(Program::compile(&"(".repeat(5000)).is_err());
    assert!(Program::compile(&format!("1{}", "+1".repeat(5000))).is_err());
    assert!(Program::compile(&format!("self{}", ".a".repeat(5000))).is_err());
}

#[test]
fn budgets_end_what_would_not_end() {
    let own = json!((0..200).collect::<Vec<_>>());
    assert_eq!(run("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))", &own), Err("budget".to_owned()));
}

#[test]
fn transitions_see_the_value_before() {
    let program = Program::compile("self == oldSelf").unwrap();
    assert!(program.uses_old_self);
    let (new, old) = (json!("a"), json!("b"));
    let mut budget = 100;
    let found = program.run(Val::of(&new, None), Some(Val::of(&old, None)), &mut budget).unwrap();
    assert!(matches!(found, Val::Bool(false)));
    assert!(!Program::compile("self.x").unwrap().uses_old_self);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9().,+*/%&|!?:<>='\"\\[\\]{} \\\\-]{0,60}") {
        let _ = run(&text, &json!({"a": [1, "x", null]}));
    }

    #[test]
    fn near_expressions_do_not_panic(parts in proptest::collection::vec(0usize..24, 0..14)) {
        const WORDS: [&str; 24] = ["self", ".a", "[0]", "(", ")", "+", "-", "==", "&&", "||", "!", "?", ":", "1", "'x'", ".size()",
            ".all(x, ", "x", ".map(x, ", "has(", " in ", "{", "}", ".substring(-1)"];
        let text: String = parts.iter().map(|part| WORDS[*part]).collect();
        let _ = run(&text, &json!({"a": [1, "x", null]}));
    }
}
