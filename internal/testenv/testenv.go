// Package testenv starts the real services that tests and benchmarks need,
// Apache Kafka and Redis, on free loopback ports and in temporary folders, and
// stops exactly the processes it started.
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestApply(t *testing.T) {
//		kafka := testenv.SharedKafka(t)       // one broker per test process
//		topic := testenv.Prefix(t) + "orders" // unique to this run of this test
//		kafka.CreateTopic(t, topic, 4, nil)
//		redis := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
//		…
//		redis.Kill()
//		redis.Restart(t.Context())
//	}
//
// [StartKafka] and [StartRedis] are the same without a test, for benchmarks
// that are commands.
//
// Where a service cannot be started because the machine lacks a program, a
// test is skipped with the reason; where the environment says CI=true it
// fails instead, so that a green CI run has met the real services.
package testenv
