//! All four targets, each by its own name.
#![no_main]

mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let accepts = match env!("CARGO_BIN_NAME") {
        "answer" => harness::answer,
        "command_line" => harness::command_line,
        "request" => harness::request,
        _ => harness::values,
    };
    accepts(bytes);
});
