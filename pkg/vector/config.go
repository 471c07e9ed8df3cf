package vector

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config says where Weaviate is and how long it may take.
type Config struct {
	// Base URL of its HTTP API, such as "http://127.0.0.1:8081".
	URL string `yaml:"url" env:"URL"`
	// host:port of its gRPC API. TLS is used, and verified, where URL is https.
	GRPCAddr string `yaml:"grpc_addr" env:"GRPC_ADDR"`
	// Sent as a bearer token where it is set.
	APIKey string `yaml:"api_key" env:"API_KEY"`
	// Longest time of one read, and of one write request.
	ReadTimeout  time.Duration `yaml:"read_timeout" env:"READ_TIMEOUT"`
	WriteTimeout time.Duration `yaml:"write_timeout" env:"WRITE_TIMEOUT"`
}

// DefaultConfig is a Weaviate on this machine, on the ports that `hone up`
// uses.
func DefaultConfig() Config {
	return Config{
		URL:          "http://127.0.0.1:8081",
		GRPCAddr:     "127.0.0.1:50051",
		ReadTimeout:  5 * time.Second,
		WriteTimeout: 30 * time.Second,
	}
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("url: %q, want http://host:port or https://host:port", c.URL))
	}
	if c.GRPCAddr == "" {
		errs = append(errs, errors.New("grpc_addr: missing, want host:port"))
	}
	if c.ReadTimeout <= 0 {
		errs = append(errs, errors.New("read_timeout: want more than 0"))
	}
	if c.WriteTimeout <= 0 {
		errs = append(errs, errors.New("write_timeout: want more than 0"))
	}
	return errors.Join(errs...)
}
