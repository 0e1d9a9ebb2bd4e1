//! Values of your own type: the source answers them, every node reads them, an entry that is not one is named.
//!
//! `cargo run --example typed`

use std::collections::HashMap;
use std::time::Duration;

use distcache::{
    Engine, EngineBuilder, Json, KeyspaceSpec, SourceError, StaticDiscovery, TypedFetched, TypedKeyspace, TypedSource,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Product {
    name: String,
    price_cents: u64,
    #[serde(default)] // nodes of the last version do not write it yet
    tags: Vec<String>,
}

/// A table of products. One query answers many keys.
struct Catalogue(HashMap<&'static str, Product>);

impl Catalogue {
    fn new() -> Self {
        let product = |name: &str, price_cents| Product { name: name.into(), price_cents, tags: vec!["office".into()] };
        Self(HashMap::from([("1", product("ink", 450)), ("2", product("paper", 899)), ("3", product("desk", 34_900))]))
    }

    fn row(&self, key: &str) -> Result<TypedFetched<Product>, SourceError> {
        let product = self.0.get(key).cloned().ok_or(SourceError::NotFound)?;
        Ok(TypedFetched::new(product).ttl(Duration::from_secs(60)))
    }
}

impl TypedSource for Catalogue {
    type Value = Product;

    async fn fetch(&self, key: &str) -> Result<TypedFetched<Product>, SourceError> {
        self.row(key)
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<TypedFetched<Product>, SourceError>> {
        println!("  (the catalogue is asked for {keys:?} at once)");
        keys.iter().map(|key| self.row(key)).collect()
    }
}

fn node(name: &str) -> EngineBuilder {
    let any_port = ([127, 0, 0, 1], 0).into();
    Engine::builder()
        .name(name)
        .keyspace(KeyspaceSpec::typed("products", Catalogue::new(), Json))
        .peer_listen(any_port)
        .gossip_listen(any_port)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a = node("a").discovery(StaticDiscovery::default()).start().await?;
    let b = node("b").discovery(StaticDiscovery::new([a.me().gossip_addr.to_string()])).start().await?;
    while a.ring() != b.ring() {
        sleep(Duration::from_millis(10)).await;
    }
    let on_a: TypedKeyspace<Product> = a.typed("products", Json)?;
    let on_b: TypedKeyspace<Product> = b.typed("products", Json)?;

    println!("read on a: {:?}", on_a.get("1").await?);
    let on_sale = Product { price_cents: 29_900, ..on_a.get("3").await? };
    on_a.put("3", &on_sale).await?;
    println!("put on a, read on b: {:?}", on_b.get("3").await?);

    // What another program left behind: no price.
    on_a.raw().put("4", r#"{"name": "lamp"}"#).await?;
    println!("many on b:");
    for product in on_b.get_many(&["1", "2", "3", "4", "5"]).await? {
        match product {
            Ok(product) => {
                println!("  {} for {}.{:02}", product.name, product.price_cents / 100, product.price_cents % 100)
            }
            Err(error) => println!("  {error}"),
        }
    }

    a.shutdown(Duration::from_secs(1)).await;
    b.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
