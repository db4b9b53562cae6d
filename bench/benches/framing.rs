//! Framing and deframing: what every frame of every session costs before anything looks at it.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roadstead_proto::v1::{
    ClientFrame, Deliver, Envelope, Send, ServerFrame, client_frame, server_frame,
};
use roadstead_proto::{Deframer, decode_frame, encode_frame, limits};

/// Frames in the chunks that are taken apart.
const FRAMES: u64 = 16;

/// Bytes of a QUIC packet that are left for stream data, about.
const PACKET: usize = 1_150;

const SIZES: [usize; 3] = [16, 100, 1_000];

fn send(payload: usize) -> ClientFrame {
    ClientFrame {
        body: Some(client_frame::Body::Send(Send {
            number: 300,
            chat: Bytes::from_static(&[1; 16]),
            payload: vec![7; payload].into(),
            deadline_ms: 0,
            after: 0,
        })),
    }
}

fn deliver(payload: usize) -> ServerFrame {
    let envelope = Envelope {
        message_id: 1 << 40,
        chat: Bytes::from_static(&[1; 16]),
        sender: 1,
        sender_device: 1,
        server_time_ms: 1_800_000_000_000,
        payload: vec![7; payload].into(),
        number: 300,
    };
    ServerFrame {
        body: Some(server_frame::Body::Deliver(Deliver {
            cursor: Bytes::from_static(&[2; 16]),
            chat_position: Bytes::new(),
            envelope: Some(envelope),
        })),
    }
}

fn stream(payload: usize) -> Bytes {
    let mut stream = BytesMut::new();
    for _ in 0..FRAMES {
        encode_frame(&send(payload), &mut stream);
    }
    stream.freeze()
}

/// Encodes a Deliver into a buffer that is used again, as the edge does.
fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame deliver");
    for size in SIZES {
        let message = deliver(size);
        let mut out = Vec::with_capacity(4_096);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_frame(black_box(&message), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn take_apart(deframer: &mut Deframer, mut chunk: Bytes) -> u64 {
    let mut frames = 0;
    while let Some(frame) = deframer.next_frame(&mut chunk).expect("valid") {
        black_box(frame);
        frames += 1;
    }
    frames
}

/// Finds the frames in a chunk that holds them whole, and in one cut at packets.
fn deframe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deframe");
    group.throughput(Throughput::Elements(FRAMES));
    for size in SIZES {
        let stream = stream(size);
        group.bench_function(BenchmarkId::new("whole", size), |bencher| {
            bencher.iter(|| {
                let mut deframer = Deframer::new(limits::FRAME_BYTES_MAX);
                assert_eq!(take_apart(&mut deframer, stream.clone()), FRAMES);
            });
        });
    }
    let stream = stream(1_000);
    group.bench_function(BenchmarkId::new("in packets", 1_000), |bencher| {
        bencher.iter(|| {
            let mut deframer = Deframer::new(limits::FRAME_BYTES_MAX);
            let frames: u64 = (0..stream.len())
                .step_by(PACKET)
                .map(|at| stream.slice(at..stream.len().min(at + PACKET)))
                .map(|chunk| take_apart(&mut deframer, chunk))
                .sum();
            assert_eq!(frames, FRAMES);
        });
    });
    group.finish();
}

/// Decodes a Send from its frame.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode send");
    for size in SIZES {
        let mut chunk = stream(size);
        let frame = Deframer::new(limits::FRAME_BYTES_MAX)
            .next_frame(&mut chunk)
            .expect("valid")
            .expect("whole");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || frame.clone(),
                |frame| decode_frame::<ClientFrame>(frame).expect("a Send"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn machine(_criterion: &mut Criterion) {
    roadstead_bench::print_machine();
}

criterion_group!(benches, machine, frame, deframe, decode);
criterion_main!(benches);
