//! Writes, reads, compares and deletes a few keys: `cargo run -p cairn-client --example keys -- 127.0.0.1:2379`.

use std::{env, error::Error};

use cairn_client::{Client, Compare, Get, KeyRange, Put, proto::ApiError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut endpoints: Vec<String> = env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:2379".into());
    }
    let client = Client::new(&endpoints)?;

    for one in client.each() {
        let status = one.status().await?;
        println!("{}: version {}, {} bytes", one.endpoint(), status.version, status.db_size);
    }

    let tour = KeyRange::prefix("/tour/");
    client.delete(tour.clone()).await?;
    for name in ["one", "two", "three"] {
        client.put(format!("/tour/{name}"), name).await?;
    }
    let answer = client.get(tour.clone()).limit(2).await?;
    println!("{} keys, of which {} at once:", answer.count, answer.kvs.len());
    for kv in &answer.kvs {
        println!("  {} = {} (revision {})", kv.key.escape_ascii(), kv.value.escape_ascii(), kv.mod_revision);
    }

    let update = client
        .txn()
        .when(Compare::mod_revision("/tour/one").equal_to(answer.kvs[0].mod_revision))
        .then(Put::new("/tour/one", "uno"))
        .otherwise(Get::new("/tour/one"));
    println!("updated: {}", update.clone().await?.succeeded);
    println!("updated twice: {}", update.await?.succeeded);

    match client.get("/tour/one").revision(1 << 40).await {
        Err(error) if error.api_error() == Some(ApiError::FutureRevision) => println!("as expected: {error}"),
        other => println!("not expected: {other:?}"),
    }
    println!("deleted: {}", client.delete(tour).await?.deleted);
    Ok(())
}
