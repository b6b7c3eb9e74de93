//! What a request's headers say of the trace that it belongs to, and what they say from here on.
use crate::random;
use http1::Fields;
use http1::trace::TraceContext;
use spans::b3::{self, B3};
use spans::sw8::{self, Sw8};

/// Flag of `traceparent`: recorded.
const SAMPLED: u8 = 1;

/// In which words the caller spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// W3C's, or none.
    W3c,
    B3Single,
    B3Multi,
}

/// What came.
#[derive(Debug)]
pub struct Came {
    form: Form,
    /// Trace and calling span.
    pub ids: Option<(u128, u64)>,
    /// Whether it is recorded, if anybody has decided.
    pub sampled: Option<bool>,
    /// SkyWalking's view.
    pub sw8: Option<Sw8>,
}

/// Reads the headers. W3C's go before the others.
pub fn read(fields: &Fields) -> Came {
    let sw8 = fields.get(sw8::HEADER).and_then(Sw8::parse);
    if let Some(context) = fields.get("traceparent").and_then(TraceContext::parse) {
        let ids = Some((context.trace_id, context.parent_id));
        return Came { form: Form::W3c, ids, sampled: Some(context.flags & SAMPLED != 0), sw8 };
    }
    let b3 = |form, of: B3| (form, Some((of.trace_id, of.span_id)), of.sampled);
    let single = fields.get_str(b3::SINGLE).and_then(B3::parse_single).map(|of| b3(Form::B3Single, of));
    let multi = || {
        let (trace, span) = (fields.get_str(b3::TRACE_ID)?, fields.get_str(b3::SPAN_ID)?);
        let of = B3::parse_multi(trace, span, fields.get_str(b3::SAMPLED), fields.get_str(b3::FLAGS))?;
        Some(b3(Form::B3Multi, of))
    };
    let (form, ids, sampled) = single.or_else(multi).unwrap_or((Form::W3c, None, None));
    Came { form, ids, sampled: sampled.or(sw8.as_ref().map(|it| it.sample)), sw8 }
}

/// Says onward that this span is the cause of what follows. B3 is spoken to who spoke it, W3C's words to everybody.
pub fn write(fields: &mut Fields, came: &Came, trace_id: u128, span_id: u64, sampled: bool) {
    let context = TraceContext { trace_id, parent_id: span_id, flags: u8::from(sampled) };
    let _ = fields.set("traceparent", &context.encode());
    let said = B3 { trace_id, span_id, sampled: Some(sampled) };
    match came.form {
        Form::W3c => {}
        Form::B3Single => drop(fields.set(b3::SINGLE, said.encode_single().as_bytes())),
        Form::B3Multi => {
            let _ = fields.set(b3::TRACE_ID, format!("{trace_id:032x}").as_bytes());
            let _ = fields.set(b3::SPAN_ID, format!("{span_id:016x}").as_bytes());
            let _ = fields.set(b3::SAMPLED, if sampled { b"1" } else { b"0" });
            if let Some((_, parent)) = came.ids {
                let _ = fields.set(b3::PARENT_SPAN_ID, format!("{parent:016x}").as_bytes());
            }
        }
    }
}

/// Ids of a trace that begins here.
pub fn fresh_trace() -> u128 {
    random::u128() | 1
}

/// Id of a span.
pub fn fresh_span() -> u64 {
    random::u64() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        pairs.iter().for_each(|(name, value)| fields.append(name, value.as_bytes()).unwrap());
        fields
    }

    #[test]
    fn every_form_is_read_and_answered_in_kind() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let w3c = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let single = format!("{TRACE}-00f067aa0ba902b7-0");
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<bool>, &'a [&'a str]);
        let cases: [Case<'_>; 4] = [
            (&[("traceparent", &w3c), ("b3", "junk")], Some(true), &["traceparent"]),
            (&[("b3", &single)], Some(false), &["traceparent", "b3"]),
            (&[("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0ba902b7")], None, &["traceparent", "x-b3-spanid"]),
            (&[("traceparent", "junk"), ("sw8", "junk")], None, &["traceparent"]),
        ];
        for (pairs, sampled, told) in cases {
            let mut fields = fields(pairs);
            let came = read(&fields);
            assert_eq!(came.sampled, sampled, "{pairs:?}");
            write(&mut fields, &came, 7, 9, true);
            for name in told {
                let value = fields.get_str(name).unwrap();
                assert!(value.contains("0000000000000009"), "{name}: {value}");
            }
        }
    }
}
