//! Everything at once, from a seed.

use super::world::{World, chat, device};

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = |text: &str| {
        let mut world = World::new(3);
        let (from, _) = (world.connect(device(1, 1)), world.connect(device(2, 1)));
        world.send(from, 1, chat(device(1, 1), device(2, 1)), text);
        world.pump();
        world.trace_hash()
    };
    assert_eq!(run("a"), run("a"));
    assert_ne!(
        run("a"),
        run("b"),
        "a hash that hashes nothing would be noticed"
    );
}
