//! The node agent tells the proxy about pods over a Unix socket.
//!
//! Each message is a big-endian `u32` length followed by that many bytes of JSON. The agent connects and asks; the proxy
//! answers every request once, with the request's `id`, in any order. The order that matters is the agent's: containers of
//! a pod start only after its `attach` was acknowledged, so that no packet of the pod ever leaves unseen.
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The largest message either side accepts. A pod with every port probed is far below this; a peer that announces more is
/// not the node agent.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What the node agent asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Chosen by the asker, returned in the answer.
    pub id: u64,
    #[serde(flatten)]
    pub order: AttachOrder,
}

/// One order about one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachOrder {
    /// Open the sockets in the pod's network namespace and redirect its traffic. Idempotent for the same `uid`.
    Attach(PodAttachment),
    /// The pod's namespace is going away: close its sockets. Unknown pods are acknowledged.
    Detach(PodRef),
    /// Take no new inbound streams for this pod and finish those that run. Acknowledged as soon as the proxy knows.
    Drain(PodRef),
}

/// A pod by its uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub uid: String,
}

/// What the proxy must know of a pod to serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAttachment {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub service_account: String,
    /// Path of the network namespace, e.g. `/var/run/netns/cni-...`.
    pub netns: String,
    pub ips: Vec<IpAddr>,
    /// Where the kubelet's probes come from: the node's address on the pod bridge (the pod's default gateway).
    pub node_ip: IpAddr,
    /// Ports that the node agent probes: from `node_ip` they are not captured.
    #[serde(default)]
    pub probe_ports: Vec<u16>,
    /// Declared container ports; a hint only, every port is captured.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// The answer to one [`AttachRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    pub id: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AttachReply {
    /// The order was carried out.
    pub fn done(id: u64) -> Self {
        Self { id, ok: true, error: None }
    }

    /// The order failed; `error` says why in words for a pod event.
    pub fn failed(id: u64, error: impl Into<String>) -> Self {
        Self { id, ok: false, error: Some(error.into()) }
    }
}

/// Why bytes on the socket are not a message. The connection is beyond use after either.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("a message of {0} bytes is over the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge(usize),
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
}

/// One message with its length in front.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, AttachError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE_BYTES {
        return Err(AttachError::TooLarge(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Takes the first whole message off the front of `buffer`; `None` when more bytes are needed.
pub fn decode<T: for<'de> Deserialize<'de>>(buffer: &mut Vec<u8>) -> Result<Option<T>, AttachError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(AttachError::TooLarge(length));
    }
    let Some(body) = buffer.get(4..4 + length) else { return Ok(None) };
    let message = serde_json::from_slice(body)?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_json_is_what_is_spoken() {
        let text = r#"{"id":1,"attach":{"uid":"u","namespace":"n","name":"p","service_account":"s","netns":"/var/run/netns/cni-1","ips":["10.244.0.5"],"node_ip":"10.244.0.1","probe_ports":[8080],"ports":[80]}}"#;
        let request: AttachRequest = serde_json::from_str(text).unwrap();
        let AttachOrder::Attach(pod) = &request.order else { panic!("an attach") };
        assert_eq!((pod.name.as_str(), pod.probe_ports.as_slice()), ("p", &[8080][..]));
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        let detach: AttachRequest = serde_json::from_str(r#"{"id":2,"detach":{"uid":"u"}}"#).unwrap();
        assert_eq!(detach.order, AttachOrder::Detach(PodRef { uid: "u".into() }));
        assert_eq!(serde_json::to_string(&AttachReply::done(2)).unwrap(), r#"{"id":2,"ok":true}"#);
        assert_eq!(serde_json::to_string(&AttachReply::failed(3, "no")).unwrap(), r#"{"id":3,"error":"no"}"#);
    }

    #[test]
    fn messages_may_arrive_in_pieces() {
        let whole = [encode(&AttachReply::done(1)).unwrap(), encode(&AttachReply::failed(2, "x")).unwrap()].concat();
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for byte in whole {
            buffer.push(byte);
            while let Some(reply) = decode::<AttachReply>(&mut buffer).unwrap() {
                seen.push(reply);
            }
        }
        assert_eq!(seen, [AttachReply::done(1), AttachReply::failed(2, "x")]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_peer_that_announces_too_much_is_refused_before_it_is_buffered() {
        let mut buffer = u32::MAX.to_be_bytes().to_vec();
        assert!(matches!(decode::<AttachReply>(&mut buffer), Err(AttachError::TooLarge(_))));
    }
}
