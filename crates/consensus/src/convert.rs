//! Raft's vocabulary to and from the peer protocol's.

use holdfast_wire::internal as wire;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use tonic::Status;

use crate::entry;
use crate::type_config::{LogEntry, LogId, TypeConfig, Vote, log_id};

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn log_id_from_wire(id: wire::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<wire::Vote>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| Status::invalid_argument("the vote is missing"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    })
}

pub(crate) fn append_to_wire(
    request: AppendEntriesRequest<TypeConfig>,
    header: Option<wire::PeerHeader>,
) -> wire::AppendRequest {
    wire::AppendRequest {
        header,
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry::encode).collect(),
    }
}

/// Every entry's checksum and form are checked here, before Raft sees any of them.
pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries: Result<Vec<LogEntry>, _> = request.entries.iter().map(entry::decode).collect();
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote)?,
        prev_log_id: request.prev_log_id.map(log_id_from_wire),
        leader_commit: request.leader_commit.map(log_id_from_wire),
        entries: entries.map_err(|error| Status::data_loss(error.to_string()))?,
    })
}

pub(crate) fn append_reply_to_wire(result: StreamAppendResult<TypeConfig>) -> wire::AppendReply {
    use wire::append_reply::Result as Kind;
    let result = match result {
        Ok(matched) => Kind::Matched(wire::Matched {
            log_id: matched.as_ref().map(log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(id)) => Kind::Conflict(log_id_to_wire(&id)),
        Err(StreamAppendError::HigherVote(vote)) => Kind::HigherVote(vote_to_wire(&vote)),
    };
    wire::AppendReply { result: Some(result) }
}

pub(crate) fn append_reply_from_wire(
    reply: wire::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    use wire::append_reply::Result as Kind;
    match reply.result {
        Some(Kind::Matched(matched)) => Ok(Ok(matched.log_id.map(log_id_from_wire))),
        Some(Kind::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(log_id_from_wire(id)))),
        Some(Kind::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?))),
        None => Err(Status::internal(
            "a peer answered an append with nothing this release knows",
        )),
    }
}

pub(crate) fn vote_request_to_wire(
    request: &VoteRequest<TypeConfig>,
    header: wire::PeerHeader,
) -> wire::VoteRequest {
    wire::VoteRequest {
        header: Some(header),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(request: wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut out = VoteRequest::new(
        vote_from_wire(request.vote)?,
        request.last_log_id.map(log_id_from_wire),
    );
    out.leadership_transfer = request.leadership_transfer;
    Ok(out)
}

pub(crate) fn vote_reply_to_wire(reply: &VoteResponse<TypeConfig>) -> wire::VoteReply {
    wire::VoteReply {
        vote: Some(vote_to_wire(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_reply_from_wire(reply: wire::VoteReply) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse::new(
        vote_from_wire(reply.vote)?,
        reply.last_log_id.map(log_id_from_wire),
        reply.granted,
    ))
}
