package embedded_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/tierstream/tierstream/internal/embedded"
)

// Another tool finds running services by their data folder.
func ExampleStart() {
	dir, err := os.MkdirTemp("", "tierstream-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	services, err := embedded.Start(context.Background(), embedded.Options{Dir: dir, Redis: "mini", Namespace: "demo"})
	if err != nil {
		log.Fatal(err)
	}
	endpoints, err := embedded.ReadEndpoints(dir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(services.RedisKind, endpoints.Redis == services.Redis, endpoints.Namespace)
	if err := services.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: miniredis true demo
}
