//! Users and their passwords, as mosquitto_passwd writes them.

use std::{collections::HashMap, fmt, num::NonZeroU32};

use data_encoding::BASE64;
use ring::{digest, pbkdf2};

/// More rounds than this would hold up a processor for seconds with each client that connects.
const MOST_ITERATIONS: u32 = 1_000_000;

/// What is wrong with a password file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}")]
pub struct UsersError {
    /// The file's name, as it was handed in.
    pub file: String,
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: PasswordError,
}

/// What is wrong with a line of a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// No colon, or nothing before it.
    #[error("expected USER:HASH, as mosquitto_passwd writes it")]
    Form,
    /// The same name on an earlier line.
    #[error("this user is on an earlier line, too")]
    Twice,
    /// Neither `$7$` nor `$6$`: a plain password, perhaps.
    #[error("expected a hash that begins with $7$ or $6$: mosquitto_passwd -U FILE hashes plain passwords")]
    Kind,
    /// The fields behind that are not as they should be.
    #[error(
        "expected $7$ITERATIONS$SALT$HASH or $6$SALT$HASH, salt and hash (64 bytes) in base64, 1,000,000 iterations at most"
    )]
    Fields,
}

#[derive(Clone)]
enum Hash {
    /// `$6$`: SHA-512 over password and salt.
    Sha512 { salt: Vec<u8>, hash: [u8; 64] },
    /// `$7$`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2 { iterations: NonZeroU32, salt: Vec<u8>, hash: [u8; 64] },
}

/// Users and their passwords.
#[derive(Clone, Default)]
pub struct Users(HashMap<String, Hash>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Users {
    /// What a file of mosquitto_passwd has: a line `USER:HASH` for each user, empty lines, and comments that begin with `#`.
    /// `file` names it in errors.
    ///
    /// # Errors
    /// With the first line that is something else.
    pub fn parse(file: &str, text: &str) -> Result<Self, UsersError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |source| UsersError { file: file.to_owned(), line: number + 1, source };
            let (user, hash) =
                line.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or(fail(PasswordError::Form))?;
            let hash = Hash::parse(hash).map_err(fail)?;
            if users.insert(user.to_owned(), hash).is_some() {
                return Err(fail(PasswordError::Twice));
            }
        }
        Ok(Self(users))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, user: &str) -> bool {
        self.0.contains_key(user)
    }

    /// Whether this is the user's password. It takes as long as its hash was made to take, some tenths of a millisecond and
    /// more: not to be done where others wait. Of a user that there is not, it takes as long as of one that mosquitto_passwd made.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        match self.0.get(user) {
            Some(Hash::Pbkdf2 { iterations, salt, hash }) => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, hash).is_ok()
            }
            Some(Hash::Sha512 { salt, hash }) => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                let found = context.finish();
                found.as_ref().iter().zip(hash).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
            }
            None => {
                let iterations = NonZeroU32::MIN.saturating_add(100);
                let _ = pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &[0; 12], password, &[0; 64]);
                false
            }
        }
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        let decode = |field: &str| BASE64.decode(field.as_bytes()).map_err(|_| PasswordError::Fields);
        let decode_hash = |field| <[u8; 64]>::try_from(decode(field)?).map_err(|_| PasswordError::Fields);
        match text.split('$').collect::<Vec<_>>()[..] {
            ["", "6", salt, hash] => Ok(Self::Sha512 { salt: decode(salt)?, hash: decode_hash(hash)? }),
            ["", "7", iterations, salt, hash] => {
                let iterations = iterations.parse().ok().filter(|n| *n <= MOST_ITERATIONS);
                let iterations = iterations.and_then(NonZeroU32::new).ok_or(PasswordError::Fields)?;
                Ok(Self::Pbkdf2 { iterations, salt: decode(salt)?, hash: decode_hash(hash)? })
            }
            ["", "6" | "7", ..] => Err(PasswordError::Fields),
            _ => Err(PasswordError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // mosquitto_passwd -b -c, of mosquitto 2.0.11; and -H sha512.
    const FILE: &str = include_str!("../tests/data/passwords");

    #[test]
    fn files_of_mosquitto_passwd_are_read_as_they_are() {
        let users = Users::parse("passwords", FILE).unwrap();
        assert!(users.verify("ada", b"lovelace") && users.verify("grace", b"hopper"));
        for (user, password) in
            [("ada", "hopper"), ("grace", ""), ("Ada", "lovelace"), ("eve", "x"), ("", "")]
        {
            assert!(!users.verify(user, password.as_bytes()), "{user}");
        }
        assert!(users.contains("ada") && !users.contains("eve"));
        assert!(!format!("{users:?}").contains('$'), "no hash in a log");
    }

    #[test]
    fn an_error_says_the_file_the_line_and_what_was_expected() {
        for (text, line, problem) in [
            ("# who\n\nada", 3, PasswordError::Form),
            (":x", 1, PasswordError::Form),
            ("ada:lovelace", 1, PasswordError::Kind),
            ("ada:$5$a$b", 1, PasswordError::Kind),
            ("ada:$7$0$AAAA$AAAA", 1, PasswordError::Fields),
            ("ada:$7$101$AAAA$AAAA", 1, PasswordError::Fields),
            ("ada:$7$4000000000$AAAA$AAAA", 1, PasswordError::Fields),
            ("ada:$6$AAAA", 1, PasswordError::Fields),
        ] {
            let error = Users::parse("/etc/p", text).unwrap_err();
            assert_eq!((error.line, error.source), (line, problem), "{text}");
            assert_eq!(error.to_string(), format!("/etc/p, line {line}"));
        }
        let twice = FILE.to_owned() + FILE;
        assert_eq!(Users::parse("p", &twice).unwrap_err().source, PasswordError::Twice);
    }
}
