//! Messages on the wire: frames are cut by tonic, and what is in them is decoded here.
//!
//! [`FrameCodec`] hands whole messages over as bytes, undecoded, so that a message that is no
//! protobuf is refused like any other wrong request, with a code of our choosing, and a stream goes
//! on after it.

use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Messages as bytes, both ways.
#[derive(Clone, Copy, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = FrameCodec;
    type Decoder = FrameCodec;

    fn encoder(&mut self) -> FrameCodec {
        FrameCodec
    }

    fn decoder(&mut self) -> FrameCodec {
        FrameCodec
    }
}

impl Encoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, frame: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.put(message);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Shares the memory of the frame.
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }
}

/// Decodes a message. Its `bytes` fields share the memory of `message`.
///
/// # Errors
/// INVALID_ARGUMENT when it is not a message of that type. (gRPC's own libraries say INTERNAL there;
/// a caller's wrong bytes are not a defect of this server, and should not look like one.)
pub fn decode<T: Message + Default>(message: Bytes) -> Result<T, Status> {
    T::decode(message)
        .map_err(|error| Status::invalid_argument(format!("message: cannot be decoded: {error}")))
}

/// Encodes an answer.
pub fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
