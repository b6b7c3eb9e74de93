//! Quantities inside objects.
//!
//! The codec writes every quantity in its canonical text already (`kube::codec::canonical_quantity`). Defaults run also on
//! what does not come through it, and resource lists are rounded up to thousandths besides.

use crate::json::{Members, text};
use kube::codec::canonical_quantity;
use model::Quantity;
use serde_json::Value;

/// Whether the text is a quantity.
pub fn is_valid(text: &str) -> bool {
    Quantity::parse(text).is_ok()
}

/// The canonical text, or the text itself when it is no quantity.
pub fn canonical(text: &str) -> String {
    canonical_quantity(text).unwrap_or_else(|_| text.to_owned())
}

/// Canonicalises a quantity member in place; JSON numbers become texts, as Go accepts both.
pub fn canonicalise(value: &mut Value) {
    let plain = match &*value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Ok(text) = canonical_quantity(&plain) {
        *value = Value::String(text);
    }
}

/// Canonicalises every member of a resource list such as `limits`, and rounds it up to thousandths.
pub fn canonicalise_list(map: &mut Members, key: &str) {
    let Some(list) = map.get_mut(key).and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        canonicalise(value);
        // Only these suffixes are finer than a thousandth; the parser rounds up.
        if text(value).ends_with(['n', 'u'])
            && let Ok(amount) = Quantity::parse(text(value))
        {
            *value = Value::String(canonical(&format!("{}m", amount.milli())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_canonical_and_round_up_to_thousandths() {
        let mut map =
            serde_json::json!({"limits": {"cpu": 1, "memory": "1048576Ki", "x": "100u", "y": "1500m", "z": "lots"}});
        canonicalise_list(map.as_object_mut().unwrap(), "limits");
        assert_eq!(
            map,
            serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi", "x": "1m", "y": "1500m", "z": "lots"}})
        );
    }
}
