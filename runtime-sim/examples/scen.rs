use megatorrent_sim::scenario::*;
fn main(){
    let a: Vec<String> = std::env::args().collect();
    let s: Scenario = a[1].parse().unwrap();
    for seed in a[2].parse::<u64>().unwrap()..a[3].parse().unwrap() {
        let t=std::time::Instant::now();
        let p = Params{seed, peers: a.get(4).and_then(|x|x.parse().ok()), blobs:a.get(5).and_then(|x|x.parse().ok()), ..Params::default()};
        let r = run_caught(s,&p);
        println!("{} {seed} real {:.1}s virt {:.0}s peers {} blobs {} acts {} median {:?} last {:?} ratio {:?} dup {} len {} ms/event {:.4} {:?}", s, t.elapsed().as_secs_f64(), r.took.as_secs_f64(), r.peers, r.blobs, r.acts, r.median(), r.last(), r.ratio_permille(), r.duplicates_permille, r.trace_len, t.elapsed().as_secs_f64()*1e3/r.trace_len as f64, r.finding);
        if let Ok(dir)=std::env::var("PIC") { std::fs::write(format!("{dir}/{s}.svg"), megatorrent_sim::picture::svg(&r,"f222ecc0123456")).unwrap(); std::fs::write(format!("{dir}/{s}.html"), megatorrent_sim::picture::html(&r,"f222ecc0123456")).unwrap(); }
        if a.get(6).is_some() { for e in &r.timeline { println!("  {:8.1} {} {}", e.at.as_secs_f64(), e.kind, e.text); } println!("{:?}", r.updates); println!("{:?}", r.traffic);}
    }
}
