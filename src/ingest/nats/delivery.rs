//! What JetStream says of a message in its reply subject, to which the acknowledgement is sent.

/// What the reply subject of a message says.
#[derive(Debug)]
pub struct Delivery<'a> {
    pub stream: &'a str,
    /// How many times it was delivered.
    pub count: u64,
    /// Its number in the stream.
    pub sequence: u64,
    /// When the stream took it, microseconds since the Unix epoch.
    pub taken_at_us: i64,
}

impl<'a> Delivery<'a> {
    /// Reads `$JS.ACK.<stream>.<consumer>.<count>.<sequence>.<sequence of the consumer>.<time>.<pending>`,
    /// or the longer form with domain and account behind `ACK`.
    pub fn read(reply: &'a str) -> Option<Delivery<'a>> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = match tokens.len() {
            7 => &tokens[..],
            9.. => &tokens[2..],
            _ => return None,
        };
        Some(Delivery {
            stream: tokens.first()?,
            count: tokens.get(2)?.parse().ok()?,
            sequence: tokens.get(3)?.parse().ok()?,
            taken_at_us: tokens.get(5)?.parse::<i64>().ok()? / 1000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_subjects_of_both_forms_are_read() {
        for reply in [
            "$JS.ACK.events.bellwether.3.42.7.1700000000000000000.5",
            "$JS.ACK._.ACCOUNT.events.bellwether.3.42.7.1700000000000000000.5",
            "$JS.ACK.hub.ACCOUNT.events.bellwether.3.42.7.1700000000000000000.5.random",
        ] {
            let delivery = Delivery::read(reply).unwrap();
            assert_eq!(
                (delivery.stream, delivery.count, delivery.sequence),
                ("events", 3, 42)
            );
            assert_eq!(delivery.taken_at_us, 1_700_000_000_000_000);
        }
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.events.bellwether",
            "$JS.ACK.a.b.c.d.e.f.g",
        ] {
            assert!(Delivery::read(reply).is_none(), "{reply}");
        }
    }
}
