package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Addr string `yaml:"addr" env:"ADDR"`
}

type sample struct {
	Kafka inner         `yaml:"kafka" envPrefix:"KAFKA_"`
	Wait  time.Duration `yaml:"wait" env:"WAIT"`
	Size  int           `yaml:"size" env:"SIZE"`
}

func (s *sample) Validate() error {
	if s.Size < 1 {
		return errors.New("size: must be at least 1")
	}
	return nil
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name, file string
		env        map[string]string
		want       sample
		wantErr    string
	}{
		{name: "defaults", want: sample{inner{"a:1"}, time.Second, 5}},
		{name: "file over defaults", file: "one:\n  wait: 3s\n", want: sample{inner{"a:1"}, 3 * time.Second, 5}},
		{name: "environment over file", file: "one:\n  wait: 3s\n  kafka: {addr: 'b:1'}\n",
			env: map[string]string{"T_WAIT": "4s", "T_KAFKA_ADDR": "c:1"}, want: sample{inner{"c:1"}, 4 * time.Second, 5}},
		{name: "other section ignored", file: "two:\n  what: 1\n", want: sample{inner{"a:1"}, time.Second, 5}},
		{name: "unknown key", file: "one:\n  wat: 3s\n", wantErr: "wat"},
		{name: "wrong type", file: "one:\n  size: many\n", wantErr: "many"},
		{name: "validated", file: "one:\n  size: 0\n", wantErr: "size: must be at least 1"},
		{name: "bad environment", env: map[string]string{"T_SIZE": "x"}, wantErr: "T_"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := ""
			if tt.file != "" {
				path = filepath.Join(t.TempDir(), "hone.yaml")
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			got := sample{inner{"a:1"}, time.Second, 5}
			err := Load(&got, path, "one", "T_")
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestInNamesTheSectionOfEachError(t *testing.T) {
	inner := errors.Join(errors.New("brokers: missing"), In("sasl", errors.Join(errors.New("user: missing"), errors.New("password: missing"))))
	if got, want := fmt.Sprint(In("kafka", inner)), "kafka.brokers: missing\nkafka.sasl.user: missing\nkafka.sasl.password: missing"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if In("kafka", nil) != nil || In("kafka", errors.Join()) != nil {
		t.Error("no error became one")
	}
}
