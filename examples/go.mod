module github.com/honeloop/hone/examples

go 1.26.0
