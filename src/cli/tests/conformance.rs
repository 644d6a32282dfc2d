//! Drives `oncekey conformance` with the vectors of other implementations.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may fail where it finds out")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// The answers to `requests`, in order.
fn answers(requests: &[Value]) -> Vec<Value> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oncekey"))
        .arg("conformance")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input: String = requests.iter().map(|request| format!("{request}\n")).collect();
    // Written beside the reading, or both pipes could fill up.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the run ends");
    writer.join().expect("no panic").expect("all requests are read");
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<_> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), requests.len());
    answers
}

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../x3dh/tests/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

/// The vector as a request, without what it expects.
fn request(op: &str, vector: &Value) -> Value {
    let mut request = vector.clone();
    let fields = request.as_object_mut().expect("an object");
    fields.remove("expect");
    fields.remove("name");
    fields.insert("op".into(), op.into());
    request
}

#[test]
fn every_native_vector_comes_out_with_every_intermediate_value() {
    let vectors = vectors("native.json");
    let vectors = vectors.as_array().expect("a list");
    let requests: Vec<_> = vectors.iter().map(|vector| request("native", vector)).collect();
    for (vector, answer) in vectors.iter().zip(answers(&requests)) {
        let mut expect = vector["expect"].clone();
        // Goes in by the operation `open`.
        expect.as_object_mut().expect("an object").remove("message");
        assert_eq!(answer, expect, "{}", vector["name"]);
    }
}

#[test]
fn every_native_message_opens() {
    let vectors = vectors("native.json");
    let vectors = vectors.as_array().expect("a list");
    let open = |vector: &Value| {
        let mut request = request("open", vector);
        request["message"] = vector["expect"]["message"].clone();
        request
    };
    let requests: Vec<_> = vectors.iter().map(open).collect();
    for (vector, answer) in vectors.iter().zip(answers(&requests)) {
        assert_eq!(answer, json!({"payload": vector["payload"]}), "{}", vector["name"]);
    }
}

#[test]
fn every_tampered_message_gets_its_code() {
    let file = vectors("refused.json");
    let messages = file["messages"].as_array().expect("a list");
    let open = |case: &Value| {
        let mut request = request("open", &file["base"]);
        request["message"] = case["message"].clone();
        request
    };
    let requests: Vec<_> = messages.iter().map(open).collect();
    for (case, answer) in messages.iter().zip(answers(&requests)) {
        let outcome = answer.get("code").cloned().unwrap_or_else(|| "opens".into());
        assert_eq!(outcome, case["outcome"], "{}: {answer}", case["name"]);
    }
}

/// A plain vector in the words of the interface.
fn plain_request(op: &str, vector: &Value, identity: &str) -> Value {
    let upper = |text: &str| match text {
        "ed25519" => "ED_25519",
        "curve25519" => "CURVE_25519",
        "sha256" => "SHA_256",
        "sha512" => "SHA_512",
        other => panic!("{other}"),
    };
    let kind = vector["kind"].as_str().expect("text").to_string();
    json!({
        "op": op,
        "format": upper(vector["format"].as_str().expect("text")),
        "hash": upper(vector["hash"].as_str().expect("text")),
        "encode": vector["encoding"],
        "identity": {kind: vector[identity]},
        "info": vector["info"],
        "ad": vector["ad"],
        "signed_pre_key": {"priv": vector["spk"]},
        "pre_keys": vector.get("opk").map(|opk| vec![opk]).unwrap_or_default(),
    })
}

#[test]
fn every_plain_vector_comes_out_on_both_sides() {
    let file = vectors("plain.json");
    let vectors = file.as_array().expect("a list");
    let bundles: Vec<_> =
        vectors.iter().map(|vector| plain_request("bundle", vector, "ik_b")).collect();
    let bundles = answers(&bundles);

    let alice = |(vector, bundle): (&Value, &Value)| {
        let mut request = plain_request("alice", vector, "ik_a");
        request["ephemeral_priv"] = vector["ek"].clone();
        request["bundle"] = bundle["bundle"].clone();
        request
    };
    let requests: Vec<_> = vectors.iter().zip(&bundles).map(alice).collect();
    let alices = answers(&requests);

    let bob = |(vector, alice): (&Value, &Value)| {
        let mut request = plain_request("bob", vector, "ik_b");
        request["header"] = alice["header"].clone();
        request
    };
    let requests: Vec<_> = vectors.iter().zip(&alices).map(bob).collect();
    let bobs = answers(&requests);

    for (n, vector) in vectors.iter().enumerate() {
        let (name, expect) = (&vector["name"], &vector["expect"]);
        assert_eq!(bundles[n]["bundle"]["identity_key"], expect["ik_b_public"], "{name}");
        assert_eq!(alices[n]["header"]["ephemeral_key"], expect["ek_public"], "{name}");
        assert_eq!(alices[n]["header"]["pre_key"], expect["opk_public"], "{name}");
        for side in [&alices[n], &bobs[n]] {
            assert_eq!(side["sk"], expect["sk"], "{name}: {side}");
            assert_eq!(side["ad"], expect["ad"], "{name}: {side}");
        }
    }
}

#[test]
fn bob_finds_an_old_signed_prekey_and_says_which_key_he_lacks() {
    let file = vectors("plain.json");
    let vector = &file[0];
    let mut good = plain_request("bob", vector, "ik_b");
    good["header"] = json!({
        "identity_key": vector["expect"]["ik_a_public"],
        "ephemeral_key": vector["expect"]["ek_public"],
        "signed_pre_key": vector["expect"]["spk_public"],
        "pre_key": vector["expect"]["opk_public"],
    });
    let mut rotated = good.clone();
    rotated["old_signed_pre_key"] = good["signed_pre_key"].clone();
    rotated["signed_pre_key"] = json!({"priv": "07".repeat(32)});
    let mut gone = rotated.clone();
    gone["old_signed_pre_key"] = Value::Null;
    let mut used = good.clone();
    used["pre_keys"] = json!([]);
    let mut bit_255 = good.clone();
    let ek = vector["expect"]["ek_public"].as_str().expect("text");
    let top = u8::from_str_radix(&ek[62..], 16).expect("hex") | 0x80;
    bit_255["header"]["ephemeral_key"] = format!("{}{top:02x}", &ek[..62]).into();

    let answers = answers(&[good, rotated, gone, used, bit_255]);
    assert_eq!(answers[0]["sk"], vector["expect"]["sk"]);
    assert_eq!(answers[1], answers[0]);
    assert_eq!(answers[2]["code"], "spk_unknown");
    assert_eq!(answers[3]["code"], "opk_missing");
    assert_eq!(answers[4]["code"], "invalid_key");
}

#[test]
fn the_safety_number_is_signals() {
    // libsignal, `rust/protocol/src/fingerprint.rs`.
    let request = json!({
        "op": "safety_number",
        "version": 1,
        "local_key": "0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868",
        "local_id": "2b3134313532323232323232",
        "remote_key": "05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b",
        "remote_id": "2b3134313533333333333333",
    });
    let number = "300354477692869396892869876765458257569162576843440918079131";
    assert_eq!(answers(&[request]), [json!({"number": number})]);
}
