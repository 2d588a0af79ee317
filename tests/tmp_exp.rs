use datafusion_sql::parser::DFParserBuilder;
fn t(sql: &str, limit: usize) -> (u128, String) {
    let s = std::time::Instant::now();
    let r = DFParserBuilder::new(sql).with_recursion_limit(limit).build().unwrap().parse_into_expr();
    let e = match r { Ok(_) => "ok".to_string(), Err(e) => e.to_string().chars().take(60).collect() };
    (s.elapsed().as_micros(), e)
}
#[test]
fn x() {
    for (open, close) in [("not (a between 3 and 12 and ", ")"), ("(a between 3 and ", ")"), ("(", ")"), ("(a + ", ")"), ("f(a, ", ")"), ("case when ", " then 1 end"), ("not (", ")")] {
        for closed in [true, false] {
            for limit in [50, 30] {
                for n in [4, 8, 10, 12, 14, 16, 20, 30] {
                    let mut sql = open.repeat(n) + "b";
                    if closed { sql += &close.repeat(n) }
                    let (us, e) = t(&sql, limit);
                    println!("{open:?} closed={closed} limit={limit} n={n} {us}us {e}");
                    if us > 3_000_000 { break }
                }
            }
        }
    }
}
