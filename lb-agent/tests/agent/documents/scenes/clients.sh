(for i in $(seq 200); do curl -s http://198.18.194.107/; sleep 0.1; done) > /dev/null &
