//! Kubernetes kinds: schema tables, JSON and protobuf codecs, OpenAPI, custom resources.
