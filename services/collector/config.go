package collector

import (
	"errors"
	"fmt"
	"time"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/collector/internal/gateway"
)

// Upstreams are the gRPC addresses of the services behind the collector.
type Upstreams = gateway.Upstreams

// Config is all that a collector can be told.
type Config struct {
	// Address of the public HTTP port.
	HTTPAddr  string        `yaml:"http_addr" env:"HTTP_ADDR"`
	Server    server.Config `yaml:"server" envPrefix:"SERVER_"`
	Kafka     stream.Config `yaml:"kafka" envPrefix:"KAFKA_"`
	Upstreams Upstreams     `yaml:"upstreams" envPrefix:"UPSTREAMS_"`
	// What an event may be.
	Limits events.Limits `yaml:"limits" envPrefix:"LIMITS_"`
	// What a key may send in a second.
	Rate RateConfig `yaml:"rate" envPrefix:"RATE_"`
	// What becomes of events while Kafka is away.
	Spool SpoolConfig `yaml:"spool" envPrefix:"SPOOL_"`

	// Bytes of a request body.
	MaxBody int `yaml:"max_body" env:"MAX_BODY"`
	// Bytes of all request bodies of events that are being read at a time.
	MaxBodies int `yaml:"max_bodies" env:"MAX_BODIES"`
	// Requests with events at a time, HTTP and gRPC together, and calls that are
	// passed on at a time. Beyond them: 503.
	MaxInFlight int `yaml:"max_in_flight" env:"MAX_IN_FLIGHT"`
	// Longest time to wait for Kafka.
	PublishTimeout time.Duration `yaml:"publish_timeout" env:"PUBLISH_TIMEOUT"`
	// Longest time that a call may take which is passed on; exports have none.
	GatewayTimeout time.Duration `yaml:"gateway_timeout" env:"GATEWAY_TIMEOUT"`
	// Longest times to read the headers and all of a request, to write an answer
	// (a part of it, where it is an export), and to keep an idle connection.
	ReadHeaderTimeout time.Duration `yaml:"read_header_timeout" env:"READ_HEADER_TIMEOUT"`
	ReadTimeout       time.Duration `yaml:"read_timeout" env:"READ_TIMEOUT"`
	WriteTimeout      time.Duration `yaml:"write_timeout" env:"WRITE_TIMEOUT"`
	IdleTimeout       time.Duration `yaml:"idle_timeout" env:"IDLE_TIMEOUT"`
	// How long to answer with readiness gone before a stop refuses connections.
	// As long as the load balancer takes to notice.
	DrainDelay time.Duration `yaml:"drain_delay" env:"DRAIN_DELAY"`
}

// DefaultConfig needs only Kafka's addresses.
func DefaultConfig() Config {
	return Config{
		HTTPAddr:          ":8080",
		Server:            server.DefaultConfig(9090, 9190),
		Kafka:             stream.DefaultConfig(),
		Upstreams:         gateway.DefaultUpstreams(),
		Limits:            events.DefaultLimits(),
		Rate:              DefaultRateConfig(),
		Spool:             DefaultSpoolConfig(),
		MaxBody:           16 << 20,
		MaxBodies:         64 << 20,
		MaxInFlight:       1024,
		PublishTimeout:    3 * time.Second,
		GatewayTimeout:    5 * time.Second,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.HTTPAddr == "" {
		errs = append(errs, errors.New("http_addr: missing, want host:port"))
	}
	for _, part := range []struct {
		key string
		err error
	}{
		{"server", c.Server.Validate()}, {"kafka", c.Kafka.Validate()},
		{"upstreams", c.Upstreams.Validate()}, {"limits", c.Limits.Validate()},
		{"rate", c.Rate.Validate()}, {"spool", c.Spool.Validate()},
	} {
		errs = append(errs, config.In(part.key, part.err))
	}
	for _, f := range []struct {
		key string
		n   int
	}{{"max_body", c.MaxBody}, {"max_bodies", c.MaxBodies}, {"max_in_flight", c.MaxInFlight}} {
		if f.n <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", f.key))
		}
	}
	if c.MaxBodies < c.MaxBody {
		errs = append(errs, fmt.Errorf("max_bodies: want at least max_body (%d)", c.MaxBody))
	}
	for _, f := range []struct {
		key string
		d   time.Duration
	}{
		{"publish_timeout", c.PublishTimeout}, {"gateway_timeout", c.GatewayTimeout}, {"read_header_timeout", c.ReadHeaderTimeout},
		{"read_timeout", c.ReadTimeout}, {"write_timeout", c.WriteTimeout}, {"idle_timeout", c.IdleTimeout},
	} {
		if f.d <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", f.key))
		}
	}
	if c.DrainDelay < 0 {
		errs = append(errs, errors.New("drain_delay: want at least 0"))
	}
	return errors.Join(errs...)
}
