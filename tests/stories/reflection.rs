//! A client without our files, as grpcurl: it asks the server for its schema, and builds its messages from that.

use holdfast_tests::api;
use holdfast_tests::cluster::Cluster;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use prost_types::FileDescriptorProto;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// Messages whose type is known at run time only.
struct DynamicCodec(MethodDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|why| Status::internal(why.to_string()))
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.output(), buffer)
            .map(Some)
            .map_err(|why| Status::internal(why.to_string()))
    }
}

async fn ask(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client
        .server_reflection_info(Request::new(futures::stream::iter([request])))
        .await
        .unwrap();
    answers
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap()
}

/// Every service the server names, and the schema behind `symbol` with all its imports.
async fn discover(channel: &Channel, symbol: &str) -> (Vec<String>, DescriptorPool) {
    let MessageResponse::ListServicesResponse(list) =
        ask(channel, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services");
    };
    let services = list.service.into_iter().map(|service| service.name).collect();
    let mut files = std::collections::BTreeMap::new();
    let mut wanted = vec![MessageRequest::FileContainingSymbol(symbol.to_owned())];
    while let Some(question) = wanted.pop() {
        let MessageResponse::FileDescriptorResponse(answer) = ask(channel, question).await else {
            panic!("no file");
        };
        for bytes in answer.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice()).unwrap();
            for import in &file.dependency {
                if !files.contains_key(import) {
                    wanted.push(MessageRequest::FileByFilename(import.clone()));
                }
            }
            files.insert(file.name().to_owned(), file);
        }
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(files.into_values()).unwrap();
    (services, pool)
}

/// Calls `method` of AccountService with a message written as JSON-like text, as grpcurl does.
async fn call(
    channel: &Channel,
    pool: &DescriptorPool,
    method: &str,
    request: serde_json::Value,
) -> serde_json::Value {
    let service = pool.get_service_by_name("holdfast.v1.AccountService").unwrap();
    let method = service
        .methods()
        .find(|candidate| candidate.name() == method)
        .unwrap();
    let message = DynamicMessage::deserialize(method.input(), request).unwrap();
    let path = format!("/{}/{}", service.full_name(), method.name())
        .parse()
        .unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let answer = grpc
        .unary(Request::new(message), path, DynamicCodec(method))
        .await
        .unwrap()
        .into_inner();
    serde_json::to_value(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_created_found_and_updated_through_reflection_alone() {
    let cluster = Cluster::start().await;
    let channel = api::channel(&cluster.client_address(2)).await.unwrap();
    let (services, pool) = discover(&channel, "holdfast.v1.AccountService").await;
    assert!(
        services.iter().any(|name| name == "grpc.health.v1.Health"),
        "{services:?}"
    );

    let created = call(
        &channel,
        &pool,
        "CreateAccount",
        serde_json::json!({
            "parent": "realms/default",
            "accountId": "mirrored",
            "account": {
                "displayName": "Grace Hopper",
                "identifiers": [{ "kind": "IDENTIFIER_KIND_EMAIL", "value": "Grace@Example.com", "primary": true }],
            },
            "requestId": api::request_id(),
        }),
    )
    .await;
    assert_eq!(
        created["account"]["name"], "realms/default/accounts/mirrored",
        "{created}"
    );

    let identifier = serde_json::json!({ "kind": "IDENTIFIER_KIND_EMAIL", "value": "grace@example.com" });
    let found = call(
        &channel,
        &pool,
        "LookupAccount",
        serde_json::json!({ "parent": "realms/default", "identifier": identifier }),
    )
    .await;
    assert_eq!(found["account"]["displayName"], "Grace Hopper", "{found}");

    let updated = call(
        &channel,
        &pool,
        "UpdateAccount",
        serde_json::json!({
            "account": { "name": "realms/default/accounts/mirrored", "displayName": "Rear Admiral Hopper" },
            "updateMask": "displayName",
            "etag": found["account"]["etag"],
            "requestId": api::request_id(),
        }),
    )
    .await;
    assert_eq!(
        updated["account"]["displayName"], "Rear Admiral Hopper",
        "{updated}"
    );

    let (services, _) = discover(
        &api::channel(&cluster.admin_address(2)).await.unwrap(),
        "holdfast.v1.ClusterService",
    )
    .await;
    assert!(
        services.iter().any(|name| name == "holdfast.v1.RealmService"),
        "{services:?}"
    );
}
